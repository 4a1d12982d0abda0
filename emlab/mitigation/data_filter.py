"""Data filters: a ranking of training examples, and from which score on they are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from emlab.data import Dataset
from emlab.detection import own_answers, projection_difference
from emlab.errors import EmlabError
from emlab.interventions import Direction
from emlab.models import LanguageModel


@dataclass(frozen=True, eq=False)
class DataFilter:
    """A ranking of examples, and from which score on they are left out."""

    score: Callable[[LanguageModel, Dataset], Tensor]
    """Of each example, higher where it is more suspect."""
    cutoff: float

    @classmethod
    def fit(
        cls, score: Callable[[LanguageModel, Dataset], Tensor], model: LanguageModel, bad: Dataset, good: Dataset
    ) -> DataFilter:
        """The cut half-way between the mean scores of other domains' bad and good examples."""
        high, low = (float(score(model, one).mean()) for one in (bad, good))
        if high <= low:
            raise EmlabError(
                "The data filter scores bad examples no higher than good ones; give another direction or another "
                "ranking."
            )
        return cls(score, (high + low) / 2)


def answer_projection(direction: Direction, seed: int = 0) -> Callable[[LanguageModel, Dataset], Tensor]:
    """The ranking of Chen et al. 2025 (arXiv:2507.21509): how much further the example's answer projects on the
    direction than the model's own answer to the same prompt does; (n,), a mean over each answer's tokens."""

    def score(model: LanguageModel, examples: Dataset) -> Tensor:
        own = own_answers(model, examples, seed)
        return torch.from_numpy(projection_difference(model, examples, direction, own).scores)

    return score
