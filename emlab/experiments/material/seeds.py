"""One training with several seeds, taken together: answers are pooled, and rates vary by domain and by seed."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from emlab.evaluation import Difference, Score, compare, score_judged
from emlab.evaluation.pooling import pooled


class Scored(Protocol):
    """A training with one seed."""

    @property
    def score(self) -> Score:
        """What its model scores."""


S = TypeVar("S", bound=Scored, covariant=True)


@dataclass(frozen=True, eq=False)
class AllSeeds(Generic[S]):
    """What one training made of a model, seed by seed and together."""

    arm: str
    """The name of what it was trained on."""
    before: Score
    """The model at the start, asked the same."""
    ones: tuple[S, ...]
    """One a seed."""

    @property
    def first(self) -> S:
        """With the first seed: for what is the same with all."""
        return self.ones[0]

    @functools.cached_property
    def score(self) -> Score:
        """The answers of all seeds as one model's."""
        return score_judged(pooled([one.score.judged for one in self.ones], self.arm))

    @functools.cached_property
    def change(self) -> Difference:
        """All seeds against the model at the start, paired by question."""
        return compare(self.before, self.score)
