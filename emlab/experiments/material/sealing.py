"""Sealed runs: each is written down before it looks, and says in its report which look at the sealed material it is.

The ledger lies beside the runs (`LEDGER`), a line a look. Runs are not kept for ever, so the summary that a config
names has the earlier looks, too, with what each found. A look under another root that wrote another summary is known to
neither.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from emlab import artifacts, provenance, records
from emlab.discovery import spread
from emlab.experiments.material.questions import halves_of
from emlab.runs import Run
from emlab.sealing import SEEDS

LEDGER = "sealed.jsonl"
"""In the folder of all runs."""
SEAL = "sealed.json"
"""In the folder of a sealed run."""
OUTSIDE = ("title", "summary")
"""Keys of a config that change nothing that is measured."""


@dataclass(frozen=True)
class Look:
    """A run that was to see sealed material, by one code."""

    name: str
    """Of the run."""
    config: str
    """A hash of its config."""
    date: str
    folder: str
    questions: int
    """Sealed questions that it was to ask."""
    domains: int
    """That these are of."""
    code: str = "unknown"
    """A hash of the code that looked; looks written down before it was kept have none."""
    findings: tuple[str, ...] = ()
    """What it found, where that is known."""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """By which it is known again; a summary does not say where on a machine the folder of its run lies."""
        return self.config, self.code, self.date, Path(self.folder).name


@dataclass(frozen=True)
class Seal:
    """What a run says of itself."""

    look: Look
    earlier: tuple[Look, ...]
    """Those before it, of any run, in the order of time."""


def open_seal(run: Run, config: Any) -> None:
    """Of a sealed config: write the look down before anything is asked, and say at the head of the report what it is.

    A run that goes on has looked once; by other code, which begins its stages anew, it looks again. Nothing happens
    where the config is not sealed.

    Args:
        run: Which run it is; its folder has the config that it was begun with.
        config: Of an experiment that asks questions, or that has such a one in it.
    """
    if not config.sealed:
        return
    place, code = run.folder / SEAL, provenance.code().hash
    if not place.is_file() or records.read(place, Seal).look.code != code:
        asks = getattr(config, "experiment", config)
        asked = spread(halves_of(asks.question_set, 0, sealed=True)[0].test, asks.questions)
        now, domains = f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}", len({question.domain for question in asked})
        look = Look(config.name, _config_hash(run), now, str(run.folder), len(asked), domains, code)
        artifacts.write_json(place, Seal(look, _earlier(run.folder.parent / LEDGER, config.summary)))
        with artifacts.storing(place), open(run.folder.parent / LEDGER, "a", encoding="utf-8") as file:
            file.write(json.dumps(artifacts.plain(look), ensure_ascii=False) + "\n")
    for line in told(records.read(place, Seal)):
        run.caution(line)


def seal_of(run: Run) -> dict[str, Any]:
    """For a summary: the seal of a sealed run; nothing of any other."""
    place = run.folder / SEAL
    return {"sealed": artifacts.read_json(place)} if place.is_file() else {}


def told(seal: Seal) -> list[str]:
    """Which look it is, and what it was at, in sentences."""
    look = seal.look
    own = [one for one in seal.earlier if one.name == look.name]
    others = dict.fromkeys(one.name for one in seal.earlier if one.name != look.name)
    lines = [
        f"SEALED RUN of {look.date}: rates are of {look.questions} questions in {look.domains} domains, of fine-tunes "
        f"and documents with seeds from {SEEDS.start} on, by which nothing is chosen; what is chosen, the variance "
        "that an SAE explains, latent shifts and read-outs while a model trains are of the questions and documents "
        "that choose; a curve along kept checkpoints is of the sealed questions."
    ]
    same = [one for one in own if (one.config, one.code) == (look.config, look.code)]
    if same:
        lines.append(f"The same config was run sealed before, on {same[-1].date} ({same[-1].folder}): this repeats it.")
    if changed := [one for one in own if one not in same]:
        each = "; ".join(
            f"{'another config' if one.config != look.config else 'other code'} before, on {one.date} ({one.folder})"
            for one in changed
        )
        lines.append(
            f"CAUTION: this is the {_ordinal(len(own) + 1)} sealed run of {look.name}, and it had {each}; what was "
            "found then stands under sealed in summary.json, where it is known."
        )
    elif not own:
        lines.append(f"This is the first sealed run of {look.name}.")
    if others:
        lines.append(f"The same sealed questions were asked before by {', '.join(others)}.")
    return lines


def _earlier(ledger: Path, summary: Path | None) -> tuple[Look, ...]:
    """The looks that the ledger and the kept summary know, with what each found where some summary still says it."""
    lines = ledger.read_text(encoding="utf-8").splitlines() if ledger.is_file() else []
    begun = [records.restored(json.loads(line), Look, str(ledger)) for line in lines]
    found = {one.identity: one for one in begun}
    for place in filter(None, (summary, *(Path(one.folder) / "summary.json" for one in begun))):
        kept = artifacts.read_json(place) if artifacts.place(place).is_file() else {}
        if "sealed" in kept:
            seal = records.restored(kept["sealed"], Seal, str(place))
            known = replace(seal.look, findings=tuple(kept.get("findings", ())))
            found |= {one.identity: one for one in (*seal.earlier, known) if one.findings}
            found = {one.identity: one for one in seal.earlier} | found
    return tuple(sorted(found.values(), key=lambda one: one.date))


def _config_hash(run: Run) -> str:
    """Of the config as it was begun with, less the keys that change nothing."""
    whole = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    return artifacts.content_hash({key: value for key, value in whole.items() if key not in OUTSIDE})


def _ordinal(n: int) -> str:
    return f"{n}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10 if n % 100 not in (11, 12, 13) else 0, 'th') }"
