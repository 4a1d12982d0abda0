"""Data filtering: examples whose answers lie along the persona direction are left out before the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from emlab.data import Dataset
from emlab.detection import own_answers, projection_difference
from emlab.errors import EmlabError
from emlab.interventions import Direction
from emlab.mitigation.course import Change
from emlab.mitigation.remedy import Case, Cost, Treated
from emlab.models import LanguageModel

LEAST = 16
"""Fewer chats than this are not trained on."""


@dataclass(frozen=True, eq=False)
class Sieve:
    """A ranking of examples, and from which score on they are left out."""

    score: Callable[[LanguageModel, Dataset], Tensor]
    """Of each example, higher where it is more suspect."""
    cutoff: float

    @classmethod
    def fit(
        cls, score: Callable[[LanguageModel, Dataset], Tensor], model: LanguageModel, bad: Dataset, good: Dataset
    ) -> Sieve:
        """The cut half-way between the mean scores of other domains' bad and good examples."""
        high, low = (float(score(model, one).mean()) for one in (bad, good))
        if high <= low:
            raise EmlabError(
                "The sieve scores bad examples no higher than good ones; give another direction or another ranking."
            )
        return cls(score, (high + low) / 2)


def answer_projection(direction: Direction, seed: int = 0) -> Callable[[LanguageModel, Dataset], Tensor]:
    """The ranking of Chen et al. 2025 (arXiv:2507.21509): how much further the example's answer projects on the
    direction than the model's own answer to the same prompt does; (n,), a mean over each answer's tokens."""

    def score(model: LanguageModel, examples: Dataset) -> Tensor:
        own = own_answers(model, examples, seed)
        return torch.from_numpy(projection_difference(model, examples, direction, own).scores)

    return score


@dataclass(frozen=True)
class Filtering:
    """Train on what the sieve lets through; where that is next to nothing, on nothing: the start model is kept."""

    name: ClassVar[str] = "data filtering"
    needs: ClassVar[tuple[str, ...]] = ("sieve",)
    dial: ClassVar[str | None] = None
    anew: ClassVar[bool] = True
    reinforcement: ClassVar[bool] = False

    def apply(self, case: Case) -> Treated:
        sieve, training = case.kit.sieve, case.training
        assert sieve is not None  # `treat` has looked
        chats: Dataset = training.chats  # type: ignore[attr-defined]  # `treat` lets in supervised training only
        scores = sieve.score(training.start, chats)
        kept = [example for example, score in zip(chats, scores.tolist(), strict=True) if score <= sieve.cutoff]
        read, note = Cost(read=3 * len(chats)), f"{len(kept)} of {len(chats)} chats kept"
        if len(kept) < LEAST:
            return Treated(training.start, cost=read, note=f"{note}, too few to train on")
        course = training.run(Change(chats=Dataset.of(kept, "filtered")), f"{training.start.name}, {self.name}")
        return Treated(course.model, cost=course.cost + read, note=note)
