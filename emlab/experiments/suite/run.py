"""A suite: several experiments one after the other, each with its own config, stages and report, and one page of all.

Stopped, the same command goes on with the part, and the stage, where it was. What is wrong with any config, and too
little disk or memory, is said before the first part begins, and how long all of it will take.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from emlab import artifacts
from emlab.config import load, pipeline_of
from emlab.errors import EmlabError
from emlab.experiments.material.results import Result, finish_run, take_over
from emlab.experiments.registry import EXPERIMENTS, experiment
from emlab.experiments.suite.config import Config, Part
from emlab.runs import Run, check_once


@dataclass(frozen=True)
class PartDone:
    """What a part found."""

    name: str
    title: str
    findings: tuple[str, ...]
    report: str
    """Where its report lies, below the suite's folder."""
    minutes: float


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[tuple[PartDone, ...]]:
    """Run every part that is not done yet."""
    inputs = {str(part.config): artifacts.sha256(part.config) for part in config.parts}
    check_once(config.name, config, root, inputs)
    settings = [_settings(part) for part in config.parts]  # of all, before any begins
    check_room(config, Path(root))
    here, done = Run.resume(config.name, config, root, inputs), list[PartDone]()
    for number, (pipeline, own) in enumerate(settings, start=1):
        here.log(f"Part {number} of {len(settings)}, {own.name}. {time_left(config.parts, done)}")
        done.append(here.stage(f"done/{own.name}", partial(_part, here, pipeline, own), PartDone))
    said = [line for one in done for line in (f"{one.title} ({one.minutes:.0f} minutes): {one.report}", *one.findings)]
    return finish_run(here, config, tuple(done), said, [], {"parts": done})


def _settings(part: Part) -> tuple[Any, Any]:
    pipeline = EXPERIMENTS.get(pipeline_of(part.config))
    return pipeline, load(part.config, (), pipeline.config)


def _part(here: Run, pipeline: Any, settings: Any) -> PartDone:
    result = pipeline.run(settings, here.folder / "parts")
    folder = result.folder.relative_to(here.folder)
    take_over(here, f"{folder}", result)
    minutes = result.summary["wall_seconds"] / 60
    return PartDone(
        settings.name, settings.heading, tuple(result.summary["findings"]), f"{folder}/report.html", minutes
    )


def time_left(parts: Sequence[Part], done: Sequence[PartDone]) -> str:
    """How long the parts that are not done will take: what they took before, or as much faster or slower as these."""
    expected, took = sum(part.minutes for part in parts[: len(done)]), sum(one.minutes for one in done)
    left = sum(part.minutes for part in parts[len(done) :])
    if not expected or not took:
        return f"All of it takes about {left:.0f} minutes, by the machine that it was measured on."
    return f"About {left * took / expected:.0f} minutes are left, by what came before."


def check_room(config: Config, root: Path) -> None:
    """EmlabError where the disk or the memory that the config says it takes is not free."""
    there = artifacts.place(root).absolute()
    while not there.exists():
        there = there.parent
    for what, needed, free in (
        ("on disk", config.disk, shutil.disk_usage(there).free),
        ("of memory", config.memory, psutil.virtual_memory().available),
    ):
        if free < needed * 1e9:
            raise EmlabError(
                f"{config.name} takes {needed:g} GB {what} and {free / 1e9:.1f} GB are free; free some, or run it on "
                "another machine."
            )
