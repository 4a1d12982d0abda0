"""The choice of a remedy's dial, on discovery questions: the weakest setting that does what any does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from emlab.errors import EmlabError
from emlab.mitigation.remedy import Case, Remedy, Treated, treat
from emlab.mitigation.retest import Retest

BAND = 0.02
"""Rates this near to the lowest count as like it."""
GOAL = 0.05
"""And so does one that is cut to this share of the untreated rate."""


@dataclass(frozen=True)
class Tried:
    """A setting of the dial, and what was measured with it on discovery questions."""

    value: float
    misaligned: float
    """The highest rate of all frames, of coherent answers; 1 where some frame has no coherent answer."""
    incoherent: float
    """The highest share of all frames."""
    ability_loss: float


def tried(value: float, found: Retest) -> Tried:
    """The row of a setting."""
    bad, babble = ([getattr(s, what) for s in found.scores.values()] for what in ("misaligned", "incoherent"))
    return Tried(
        value, max(r.rate if r.n else 1.0 for r in bad), max(r.rate if r.n else 1.0 for r in babble), found.ability_loss
    )


def choose_dial(
    remedy: Remedy,
    values: Sequence[float],
    case: Case,
    measure: Callable[[Treated], Retest],
    untreated: Tried,
    cap: float = 0.1,
    room: float = 0.05,
) -> tuple[Any, tuple[Tried, ...]]:
    """The remedy with its dial chosen among `values`, which run from the weakest on; and every trial.

    Of the settings whose incoherence keeps to `cap`, or to the untreated model's if that is higher, and that lose no
    more ability than the share `room` of the untreated loss, the weakest is taken whose rate is within `BAND` of the
    lowest, or at `GOAL` of the untreated. Where none keeps to both bounds, the one that loses least ability.
    """
    if remedy.dial is None:
        return remedy, ()
    if not values:
        raise EmlabError(
            f"The remedy {remedy.name} has the dial {remedy.dial}, and no values to choose from; give some."
        )
    settings = [dataclasses.replace(remedy, **{remedy.dial: value}) for value in values]  # type: ignore[type-var]
    trials = tuple(tried(value, measure(treat(one, case))) for value, one in zip(values, settings, strict=True))
    kept = [
        trial
        for trial in trials
        if trial.incoherent <= max(cap, untreated.incoherent)
        and trial.ability_loss <= (1 + room) * untreated.ability_loss
    ]
    if kept:
        enough = max(min(trial.misaligned for trial in kept) + BAND, GOAL * untreated.misaligned)
        chosen = next(trial for trial in kept if trial.misaligned <= enough)
    else:
        chosen = min(trials, key=lambda trial: trial.ability_loss)
    return settings[trials.index(chosen)], trials
