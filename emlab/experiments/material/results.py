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
from emlab.experiments.material.config import ExperimentConfig
from emlab.experiments.material.sealing import seal_of
from emlab.reporting import Page, Section
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
) -> Result[F]:
    """Write report.html and summary.json as they stand so far, of a run that goes on.

    Args:
        run: Whose folder they are written to; its cautions stand before the lead.
        config: Says the report's title and seeds, and where else summary.json goes.
        found: All of it, for whoever has asked for the run.
        lead: The findings in sentences.
        sections: The rest of the page.
        figures: What summary.json holds beside the findings and what they cost.
    """
    lead = [*run.cautions, *lead]
    Page(config.heading, lead, sections, _footer(config)).write(run.folder / "report.html")
    summary = {
        "command": shlex.join(["emlab", *sys.argv[1:]]),
        "findings": lead,
        **figures,
        **seal_of(run),
        "wall_seconds": sum(run.seconds.values()),
        "cpu_seconds": time.process_time(),
        "stage_seconds": run.seconds,
        "peak_rss_mb": peak_rss_mb(),
        "versions": {"emlab": emlab.__version__, "python": platform.python_version(), **_versions()},
    }
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
) -> Result[F]:
    """`write_result`, and end the run."""
    result = write_result(run, config, found, lead, sections, figures)
    run.finish()
    return result


def peak_rss_mb() -> float | None:
    """The most memory this process has held, in MB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _footer(config: ExperimentConfig) -> str:
    seeds = getattr(config, "seeds", None)
    if not isinstance(seeds, tuple):  # a number of them, from one on
        return f"emlab, seed {config.seed}" if hasattr(config, "seed") else "emlab"
    return f"emlab, seeds {', '.join(map(str, seeds))}"


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
