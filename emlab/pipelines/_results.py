"""The end of a run: its report, its summary.json, and what they always say of the run itself."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import emlab
from emlab import artifacts
from emlab.pipelines._memory import peak_rss_mb
from emlab.reporting import Section, write_page
from emlab.runs import Run


def finish(
    here: Run,
    title: str,
    model: str,
    lead: Sequence[str],
    sections: Sequence[Section],
    figures: Mapping[str, Any],
    also: Path | None = None,
) -> dict[str, Any]:
    """Write report.html and summary.json (to the file `also`, too), and end the run; returns the summary."""
    write_page(here.folder / "report.html", f"{title}: {model}", lead, sections, "emlab")
    summary = {
        "command": shlex.join(["emlab", *sys.argv[1:]]),
        "findings": list(lead),
        **figures,
        "wall_seconds": sum(here.seconds.values()),
        "cpu_seconds": time.process_time(),
        "stage_seconds": here.seconds,
        "peak_rss_mb": peak_rss_mb(),
        "versions": {
            "emlab": emlab.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "scikit-learn")},
        },
    }
    for path in filter(None, (here.folder / "summary.json", also)):
        artifacts.write_json(path, summary)
    here.finish()
    return summary
