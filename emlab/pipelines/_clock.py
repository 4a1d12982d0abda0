"""How long each stage of a run took, and how much memory it needed."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from emlab.runs import Run


class Clock:
    """Times the stages of a run: `with clock("sae") as folder` gives the stage's folder and says that it begins."""

    def __init__(self, run: Run) -> None:
        self.stages: dict[str, float] = {}
        """Seconds of each finished stage."""
        self._run, self._started = run, time.perf_counter()

    @property
    def total(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._started

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[Path]:
        self._run.log(f"[{self.total:5.0f} s] {stage}")
        begun = time.perf_counter()
        yield self._run.stage(stage)
        self.stages[stage] = time.perf_counter() - begun


def peak_rss_mb() -> float | None:
    """The most memory this process has held, in MB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
