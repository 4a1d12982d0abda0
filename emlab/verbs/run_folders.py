"""The folders of runs, opened again: what each asked and found, a list of them, and several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.notebook import Shown
from emlab.reporting import Page, Section, Table
from emlab.runs import STAGE, STATE

ESTIMATES = ("rate", "misaligned", "auroc", "value")
"""Under one of these a summary has the estimate of which it has an interval, `low` and `high`."""
NAMES = ("name", "model", "arm", "remedy", "method", "monitor", "start", "ending", "questions", "seed", "step")
"""By those of these that it has, an entry of a list is told from the others."""
APART = ("config", "provenance", "versions", "stage_seconds", "verdict", "recipe")
"""Parts of a summary without figures of results."""


@dataclass(frozen=True, repr=False)
class OpenedRun(Shown):
    """One run's folder. `to_pandas` gives the rates and areas of its summary that have a name, with their intervals."""

    folder: Path
    finished: bool
    settings: Mapping[str, Any]
    """Its config."""
    stages: tuple[str, ...]
    """Those that are finished."""
    summary: Mapping[str, Any]
    """Its figures, as summary.json has them; empty before there are some."""

    @property
    def findings(self) -> tuple[str, ...]:
        """What it found, in sentences."""
        return tuple(self.summary.get("findings", ()))

    @property
    def report(self) -> Path | None:
        """Its page; None where there is none yet."""
        page = self.folder / "report.html"
        return page if page.is_file() else None

    def rows(self) -> list[dict[str, Any]]:
        """A row for each rate and area: {figure, estimate, low, high, n}, as plain values; n where it is told.

        Points of curves that have no name, and no step, are left out.
        """
        return list(_rated(self.summary, ()))

    def __str__(self) -> str:
        state = "finished" if self.finished else f"not finished, {len(self.stages)} stages done"
        last = f"Report: {self.report}" if self.report else f"Results: {self.folder}"
        head = f"{self.folder.name}: {self.settings.get('pipeline', 'a run')}, {state}"
        return "\n".join([head, *self.findings, last])


@dataclass(frozen=True, repr=False)
class RunList(Shown):
    """The runs of a folder, the latest first."""

    root: Path
    runs: tuple[OpenedRun, ...]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[OpenedRun]:
        return iter(self.runs)

    def __getitem__(self, number: int) -> OpenedRun:
        return self.runs[number]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each run, as plain values."""
        return [
            {
                "run": str(run.folder),
                "experiment": run.settings.get("pipeline", ""),
                "finished": run.finished,
                "stages": len(run.stages),
                "found": next(iter(run.findings), ""),
            }
            for run in self
        ]

    def summary(self) -> list[dict[str, Any]]:
        """The rows."""
        return self.rows()

    def __str__(self) -> str:
        if not self.runs:
            return f"There is no run in {self.root}; emlab run CONFIG makes one."
        told = [(r["run"], "finished" if r["finished"] else f"{r['stages']} stages", r["found"]) for r in self.rows()]
        return Table(("run", "state", "found first"), tuple(told)).text()


@dataclass(frozen=True, repr=False)
class Compared(Shown):
    """Runs side by side: what they asked differently, and each figure of all."""

    runs: tuple[OpenedRun, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What the runs are called: their folders' names, or their whole paths where two have the same."""
        names = [run.folder.name for run in self.runs]
        return tuple(names if len(set(names)) == len(names) else (str(run.folder) for run in self.runs))

    def settings(self) -> dict[str, list[Any]]:
        """The keys of the configs that differ, and the value of each run; None where a run has no such key."""
        each = [dict(_leaves(run.settings, ())) for run in self.runs]
        keys = dict.fromkeys(key for one in each for key in one)
        return {key: [one.get(key) for one in each] for key in keys if len({repr(one.get(key)) for one in each}) > 1}

    def rows(self) -> list[dict[str, Any]]:
        """A row for each figure, as plain values: {figure, and the estimate of each run by its name, or None}."""
        each = [{row["figure"]: row for row in run.rows()} for run in self.runs]
        figures = dict.fromkeys(figure for one in each for figure in one)
        return [
            {
                "figure": figure,
                **{name: one.get(figure, {}).get("estimate") for name, one in zip(self.names, each, strict=True)},
            }
            for figure in figures
        ]

    def summary(self) -> dict[str, Any]:
        """Settings and rows."""
        return {"settings": self.settings(), "figures": self.rows()}

    def __str__(self) -> str:
        said = [f"{key}: {' | '.join(map(str, values))}" for key, values in self.settings().items()]
        return "\n".join([*said, self._figures().text()])

    def page(self) -> Page:
        """All of it as a page."""
        asked = tuple((key, *map(str, values)) for key, values in self.settings().items())
        says = "Estimates, shares of 1 or areas, with 95% intervals; a dash where a run has none."
        sections = (
            Section("What they asked differently", "", tables=(Table(("key", *self.names), asked),)),
            Section("Figures", says, tables=(self._figures(),)),
            *(
                Section(name, " ".join(run.findings) or "It has found nothing yet.")
                for name, run in zip(self.names, self.runs, strict=True)
            ),
        )
        return Page("Runs compared", [], sections)

    def _figures(self) -> Table:
        each = [{row["figure"]: _said(row) for row in run.rows()} for run in self.runs]
        figures = dict.fromkeys(figure for one in each for figure in one)
        rows = tuple((figure, *(one.get(figure, "–") for one in each)) for figure in figures)
        return Table(("figure", *self.names), rows)


def open_run(folder: str | Path) -> OpenedRun:
    """The run in a folder, finished or not. EmlabError where there is none.

    Args:
        folder: As `emlab run` made it, in runs/.
    """
    place = artifacts.place(folder)
    if not (place / STATE).is_file():
        raise EmlabError(f"{folder} is no folder of a run; `emlab runs` lists those that there are.")
    try:
        settings = yaml.safe_load(artifacts.read_text(place / "config.yaml", "YAML"))
    except yaml.YAMLError as error:
        raise EmlabError(f"{place / 'config.yaml'} is no YAML; restore it, or delete the run.") from error
    stages = sorted(one.parent.relative_to(place).as_posix() for one in place.rglob(STAGE))
    summary = place / "summary.json"
    found = artifacts.read_json(summary) if summary.is_file() else {}
    return OpenedRun(place, artifacts.read_json(place / STATE)["finished"], settings or {}, tuple(stages), found)


def list_runs(root: str | Path = "runs") -> RunList:
    """The runs below a folder, the latest first."""
    place = artifacts.place(root)
    folders = sorted(place.glob(f"*/{STATE}"), key=lambda state: state.parent.stat().st_mtime, reverse=True)
    return RunList(place, tuple(open_run(state.parent) for state in folders))


def report_runs(runs: Sequence[str | Path], compare: bool = False, out: str | Path | None = None) -> Shown:
    """One run as it is, or several side by side, with a page of them.

    Args:
        runs: Their folders.
        compare: Whether to lay them side by side.
        out: The page to write of several; none is written by default.
    """
    opened = tuple(open_run(run) for run in runs)
    if not compare:
        if len(opened) > 1 or out is not None:
            raise EmlabError("Several runs, and a page of them, are compared; add --compare.")
        return opened[0]
    found = Compared(opened)
    if out is not None:
        found.page().write(out)
    return found


def _rated(part: Any, path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Every estimate with an interval below a part of a summary."""
    if isinstance(part, list):
        for entry in part:
            names = [entry.get(key) for key in NAMES] if isinstance(entry, Mapping) else []
            if said := ", ".join(str(name) for name in names if name not in (None, "")):
                yield from _rated(entry, (*path, said))
    elif isinstance(part, Mapping):
        key = next((key for key in ESTIMATES if isinstance(part.get(key), int | float)), None)
        if key is not None and "low" in part and "high" in part:
            yield {"figure": " · ".join(path), "estimate": part[key], **{k: part.get(k) for k in ("low", "high", "n")}}
        for name, inner in part.items():
            if name not in APART:
                yield from _rated(inner, (*path, name))


def _said(row: Mapping[str, Any]) -> str:
    ends = [row[end] for end in ("low", "high")]
    within = "" if None in ends else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
    return f"{row['estimate']:.3f}{within}"


def _leaves(part: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(part, Mapping) and part:
        for name, inner in part.items():
            yield from _leaves(inner, (*path, str(name)))
    else:
        yield ".".join(path), part
