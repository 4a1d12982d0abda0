"""A suite: several experiments one after the other, each with its own config, stages and report, and one page of all.

Stopped, the same command goes on with the part, and the stage, where it was; a part that is done is done again only
where what it reads has changed. What is wrong with any config, and too
little disk or memory, is said before the first part begins, and how long all of it will take.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from emlab import artifacts
from emlab.config import load, pipeline_of
from emlab.errors import EmlabError
from emlab.experiments.material.results import Result, finish_run, take_over, write_result
from emlab.experiments.registry import EXPERIMENTS, experiment
from emlab.experiments.suite.config import Config, Part
from emlab.runs import STATE, AlreadyDone, Run, check_once, once
from emlab.shipped import located


@dataclass(frozen=True)
class PartDone:
    """What a part found."""

    name: str
    title: str
    findings: tuple[str, ...]
    report: str
    """Where its report lies, below the suite's folder; empty where the part was left out."""
    minutes: float
    summary: dict[str, Any]
    """Its figures, as its own summary.json has them."""


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[tuple[PartDone, ...]]:
    """Run every part that is not done yet."""
    inputs = {str(part.config): artifacts.sha256(located(part.config)) for part in config.parts}
    check_once(config.name, config, root, inputs)
    settings = [_settings(part) for part in config.parts]  # of all, before any begins
    names = [own.name for _, own in settings]
    if twice := [name for name in names if names.count(name) > 1]:
        raise EmlabError(f"Two parts of {config.name} have the name {twice[0]}; give each config a name of its own.")
    check_room(config, Path(root))
    here, done = Run.resume(config.name, config, root, inputs), list[PartDone]()
    for number, (part, (pipeline, own)) in enumerate(zip(config.parts, settings, strict=True), start=1):
        here.log(f"Part {number} of {len(settings)}, {own.name}. {time_left(config.parts, done)}")
        try:
            done.append(_part(here, pipeline, own))
        except EmlabError as error:
            if not part.optional:
                raise
            done.append(PartDone(own.name, own.heading, (f"Left out: {error}",), "", 0.0, {}))
            here.log(done[-1].findings[0])
    said = [line for one in done for line in (_title(one), *one.findings)]
    end = finish_run if all(one.report for one in done) else write_result  # what was left out is tried again next time
    return end(here, config, tuple(done), said, [], {"parts": done})


def _title(one: PartDone) -> str:
    return f"{one.title} ({one.minutes:.0f} minutes): {one.report}" if one.report else f"{one.title}:"


def _settings(part: Part) -> tuple[Any, Any]:
    pipeline = EXPERIMENTS.get(pipeline_of(part.config))
    return pipeline, load(part.config, (), pipeline.config)


def _part(here: Run, pipeline: Any, settings: Any) -> PartDone:
    """Run one experiment, or read what it found where it is done, with these inputs and by this code, already."""
    root = here.folder / "parts"
    try:
        with once(root):
            place = pipeline.run(settings, root).folder
    except AlreadyDone as done:
        place = done.folder
    summary, folder = artifacts.read_json(place / "summary.json"), place.relative_to(here.folder)
    take_over(here, f"{folder}", summary)
    found, page = tuple(summary["findings"]), f"{folder}/report.html"
    return PartDone(settings.name, settings.heading, found, page, summary["wall_seconds"] / 60, summary)


def time_left(parts: Sequence[Part], done: Sequence[PartDone]) -> str:
    """How long the parts that are not done will take: what they took before, or as much faster or slower as these."""
    known = [(part.minutes, one.minutes) for part, one in zip(parts, done, strict=False) if one.report]
    expected, took = (sum(column) for column in zip(*known, strict=True)) if known else (0, 0)
    left = sum(part.minutes for part in parts[len(done) :])
    if not expected or not took:
        return f"All of it takes about {left:.0f} minutes, by the machine that it was measured on."
    return f"About {left * took / expected:.0f} minutes are left, by what came before."


def check_room(config: Config, root: Path) -> None:
    """EmlabError where the disk or the memory that the config says it takes is not free.

    What an unfinished run of it holds already counts as free.
    """
    runs = [folder for folder in artifacts.place(root).glob(f"{config.name}-*") if (folder / STATE).is_file()]
    unfinished = [folder for folder in runs if not artifacts.read_json(folder / STATE)["finished"]]
    there = artifacts.place(root).absolute()
    while not there.exists():
        there = there.parent
    begun = sum(file.stat().st_size for run in unfinished for file in run.rglob("*") if file.is_file())
    for what, needed, free in (
        ("on disk", config.disk, shutil.disk_usage(there).free + begun),
        ("of memory", config.memory, psutil.virtual_memory().available),
    ):
        if free < needed * 1e9:
            raise EmlabError(
                f"{config.name} takes {needed:g} GB {what} and {free / 1e9:.1f} GB are free; free some, or run it on "
                "another machine."
            )
