"""What else the machine does while a benchmark measures: a wait until that is little, and what the result says of it.

What counts is the CPU that other processes use, in cores: what the whole machine used, less what this process and those
that it started did. The load average lags minutes behind and counts the benchmark itself; it is written down beside it.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

QUIET = 0.25
"""Cores that other processes may use, before a benchmark and while it measures."""
LOOK = 10.0
"""Seconds of one look at them."""


def _of_machine() -> float:
    times = psutil.cpu_times()
    # What the host took from a virtual machine (steal) disturbs as well. Guests' time is in `user` already.
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))


def _of_own() -> float:
    spent = sum(os.times()[:4])
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended, and counts above
            spent += sum(child.cpu_times()[:4])
    return spent


@dataclass(frozen=True)
class Used:
    """Seconds used so far; a difference of two is what was used between them."""

    clock: float = field(default_factory=time.monotonic)
    machine: float = field(default_factory=_of_machine)
    own: float = field(default_factory=_of_own)

    def others_since(self, before: Used) -> float:
        """Cores that other processes used on average."""
        spent = (self.machine - before.machine) - (self.own - before.own)
        return max(0.0, spent / (self.clock - before.clock))


class Load:
    """What other processes used before the measurement, and from then on."""

    def __init__(self, busy: bool, wait_minutes: float) -> None:
        """
        Args:
            busy: Measure whatever other processes do.
            wait_minutes: How long to wait until they use less than `QUIET`; then the benchmark is refused.

        Raises:
            SystemExit: They still use more.
        """
        self.busy, told = busy, False
        until = time.monotonic() + 60 * wait_minutes
        while True:
            before = Used()
            time.sleep(LOOK)
            self.before = Used().others_since(before)
            if busy or self.before < QUIET:
                break
            if time.monotonic() >= until:
                raise SystemExit(
                    f"Other processes use {self.before:.2f} cores after {wait_minutes:g} minutes of waiting, and a "
                    f"benchmark needs less than {QUIET}: end them, wait longer with --wait MINUTES, or measure all the "
                    "same with --busy, which the result says."
                )
            if not told:
                print(
                    f"Waiting {wait_minutes:g} minutes at most until other processes use less than {QUIET} cores; "
                    f"now {self.before:.2f}.",
                    file=sys.stderr,
                    flush=True,
                )
                told = True
        self.average, self.start = _average(), Used()

    def told(self) -> dict[str, Any]:
        """What the result file says, at the end of the measurement."""
        during = Used().others_since(self.start)
        return {
            "quiet": not self.busy and max(self.before, during) < QUIET,
            "busy": self.busy,
            "cores_of_others": {"before": self.before, "during": during, "less_than": QUIET},
            "load_average": {"start": self.average, "end": _average()},
        }


def sentence(told: dict[str, Any]) -> str:
    """One line under a table of what was measured."""
    cores = told["cores_of_others"]
    used = f"other processes used {cores['before']:.2f} cores before and {cores['during']:.2f} meanwhile"
    if told["busy"]:
        return f"MEASURED WITH --busy: {used}."
    return f"{used.capitalize()}." if told["quiet"] else f"DISTURBED, measure again: {used}."


def _average() -> list[float] | None:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
