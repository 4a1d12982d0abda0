"""The end of a run: its report, its summary.json, and what they always say of the run itself."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import emlab
from emlab import artifacts
from emlab.experiments.material.memory import peak_rss_mb
from emlab.reporting import Section, write_page
from emlab.runs import Run

F = TypeVar("F")

LIBRARIES = ("torch", "transformers", "peft", "trl", "scikit-learn", "sae-lens")
"""Whose versions are said, where they are installed."""


@dataclass(frozen=True, eq=False)
class Result(Generic[F]):
    """What a run found, and where it lies."""

    folder: Path
    found: F
    summary: Mapping[str, Any]
    """What stands in summary.json."""

    def __str__(self) -> str:
        table = [self.found.text()] if hasattr(self.found, "text") else []
        return "\n".join([*table, *self.summary["findings"], f"Report: {self.folder / 'report.html'}"])


def write(
    here: Run,
    title: str,
    model: str,
    lead: Sequence[str],
    sections: Sequence[Section],
    figures: Mapping[str, Any],
    also: Path | None = None,
    seeds: Sequence[int] = (),
) -> dict[str, Any]:
    """Write report.html and summary.json (to the file `also`, too); returns the summary.

    The run's cautions stand before the `lead`.
    """
    lead = [*here.cautions, *lead]
    footer = f"emlab, seeds {', '.join(map(str, seeds))}" if seeds else "emlab"
    write_page(here.folder / "report.html", f"{title}: {model}", lead, sections, footer)
    summary = {
        "command": shlex.join(["emlab", *sys.argv[1:]]),
        "findings": list(lead),
        **figures,
        "wall_seconds": sum(here.seconds.values()),
        "cpu_seconds": time.process_time(),
        "stage_seconds": here.seconds,
        "peak_rss_mb": peak_rss_mb(),
        "versions": {"emlab": emlab.__version__, "python": platform.python_version(), **_versions()},
    }
    for path in filter(None, (here.folder / "summary.json", also)):
        artifacts.write_json(path, summary)
    return summary


def finish(here: Run, *results: Any, **more: Any) -> dict[str, Any]:
    """`write`, and end the run."""
    summary = write(here, *results, **more)
    here.finish()
    return summary


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
