"""The end of a run: its report, its summary.json, and what they always say of the run itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from emlab import artifacts
from emlab.experiments.material.config import ExperimentConfig
from emlab.experiments.material.sealing import seal_of
from emlab.notebook import Shown
from emlab.provenance import Code, command, footer, provenance, versions, without_places
from emlab.reporting import Page, Plot, Section, Tile
from emlab.runs import Run

F = TypeVar("F")


@dataclass(frozen=True, eq=False, repr=False)
class Result(Shown, Generic[F]):
    """What a run found, and where it lies."""

    folder: Path
    found: F
    summary: Mapping[str, Any]
    """What stands in summary.json."""

    def __str__(self) -> str:
        table = [self.found.text()] if hasattr(self.found, "text") else []
        report = self.folder / "report.html"
        where = f"Report: {report}" if report.is_file() else f"Results: {self.folder}"
        return "\n".join([*table, *self.summary.get("findings", ()), where])


def write_result(
    run: Run,
    config: ExperimentConfig,
    found: F,
    lead: Sequence[str],
    sections: Sequence[Section],
    figures: Mapping[str, Any],
    tiles: Sequence[Tile] = (),
    picture: Plot | None = None,
) -> Result[F]:
    """Write report.html and summary.json as they stand so far, of a run that goes on.

    Neither the summary nor the report's footer names a place of this machine (see `emlab.provenance.without_places`).

    Args:
        run: Whose folder they are written to; its cautions stand before the lead.
        config: Says the report's title and seeds, and where else summary.json goes.
        found: All of it, for whoever has asked for the run.
        lead: The findings in sentences.
        sections: The rest of the page; where there are neither these nor a lead, no page is written.
        figures: What summary.json holds beside the findings and what they cost.
        tiles: The figures at the head of the page.
        picture: The plot there.
    """
    lead, processes = [*run.told(), *lead], run.processes()
    told = provenance(config, processes, run.other_code)
    if lead or sections:
        Page(config.heading, lead, sections, f"{footer(told)} · {command()}", tiles, picture).write(
            run.folder / "report.html"
        )
    whole = {
        "command": command(),
        "findings": lead,
        **figures,
        **seal_of(run),
        "wall_seconds": sum(process["wall_seconds"] for process in processes),
        "cpu_seconds": sum(process["cpu_seconds"] for process in processes),
        "stage_seconds": run.seconds,
        "peak_rss_mb": peak_rss_mb(),
        "versions": versions(),
        "provenance": told,
    }
    summary = without_places(artifacts.plain(whole), config, run.folder.parent)
    for path in filter(None, (run.folder / "summary.json", config.summary)):
        artifacts.write_json(path, summary)
    return Result(run.folder, found, summary)


def finish_run(
    run: Run,
    config: ExperimentConfig,
    found: F,
    lead: Sequence[str],
    sections: Sequence[Section],
    figures: Mapping[str, Any],
    tiles: Sequence[Tile] = (),
    picture: Plot | None = None,
) -> Result[F]:
    """`write_result`, and end the run."""
    result = write_result(run, config, found, lead, sections, figures, tiles, picture)
    run.finish()
    return result


def take_over(run: Run, part: str, summary: Mapping[str, Any]) -> None:
    """Let `run` tell, as its own, of the stages of other code that a run inside it (in its folder `part`) kept."""
    for stage, codes in summary["provenance"]["stages_of_other_code"].items():
        run.other_code[f"{part}/{stage}"] = tuple(Code(**code) for code in codes)


def peak_rss_mb() -> float | None:
    """The most memory this process has held, in MB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
