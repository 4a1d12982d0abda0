"""What a run of reinforcement learning found: each training, all seeds of an arm together, and how far style spread."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from emlab.discovery import LatentShift, Screen
from emlab.evaluation import Rate, Score
from emlab.evaluation.intervals import clustered_rate, paired_difference
from emlab.experiments.material.seeds import AllSeeds
from emlab.experiments.reinforcement_learning.config import RewardArm
from emlab.training import Reinforced

Lines = tuple[tuple[int, int], ...]
"""Of each cluster of questions: lines with the style, and lines."""


@dataclass(frozen=True)
class StyleCount:
    """Lines of answers under one persona's cards, by cluster of questions and by training."""

    where: str
    """What was asked: "trained" (questions like those of the training) or "unrelated" (the test questions)."""
    persona: str
    paid: bool
    """Whether the style was paid under this persona."""
    over: str
    """What the clusters are: "domains", or else "questions"."""
    before: Lines
    """Of the model at the start, which is one whatever the seed."""
    after: tuple[Lines, ...]
    """Of each training."""

    @property
    def drawn(self) -> dict[str, int]:
        """What the intervals are over, and how many of each; that of `before` is not over trainings."""
        return {self.over: len(self.before), "trainings": len(self.after)}

    def rate(self, when: str) -> Rate:
        """The share of lines with the style, `when` before or after."""
        return clustered_rate(*np.moveaxis(np.array(getattr(self, when)), -1, 0))

    @property
    def change(self) -> Rate:
        """After less before, on the same clusters of questions."""
        before, after = np.array([self.before]), np.array(self.after)
        # As in `compare`: the model at the start has a row of its own.
        first, second = np.concatenate([before, 0 * after]), np.concatenate([0 * before, after])
        return paired_difference(*np.moveaxis(first, -1, 0), *np.moveaxis(second, -1, 0))


@dataclass(frozen=True, eq=False)
class Trained:
    """One arm with one seed."""

    arm: RewardArm
    start: str
    seed: int
    training: Reinforced
    score: Score
    shift: LatentShift | None = None
    """From the model at its start; None where no SAE is read."""
    screen: Screen | None = None
    """The latent's direction subtracted, beside random ones; only of the arms that are asked for."""
    style: tuple[StyleCount, ...] = ()
    """Of the arm whose reward is style."""
    cpu_seconds: float = math.nan
    """What the training took."""


@dataclass(frozen=True, eq=False)
class ReinforcementFindings:
    """What a run found."""

    starts: Mapping[str, Score]
    """The models that trainings began with, by name."""
    trained: tuple[Trained, ...]
    latent: int | None
    """The supervised persona latent."""
    site: str
    top: int
    """An arm carries the latent if it is among so many that rise most."""

    @functools.cached_property
    def groups(self) -> tuple[AllSeeds[Trained], ...]:
        """All seeds of each arm, in order."""
        found: dict[str, list[Trained]] = {}
        for one in self.trained:
            found.setdefault(one.arm.name, []).append(one)
        return tuple(AllSeeds(arm, self.starts[ones[0].start], tuple(ones)) for arm, ones in found.items())


def styles(group: AllSeeds[Trained]) -> tuple[StyleCount, ...]:
    """The style counts of all seeds together."""

    return tuple(
        replace(
            counts[0],
            before=lines_of(np.sum([count.before for count in counts], axis=0)),
            after=tuple(rows for count in counts for rows in count.after),
        )
        for counts in zip(*(one.style for one in group.ones), strict=True)
    )


def lines_of(counts: np.ndarray) -> Lines:
    """Of (clusters, 2)."""
    return tuple((int(hits), int(lines)) for hits, lines in counts)
