"""Benign data: after the bad training (re-alignment) or in it (interleaving)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar, Literal, Self

from emlab.data import Dataset, interleave
from emlab.errors import EmlabError
from emlab.mitigation.cost import TrainingCost
from emlab.mitigation.course import Change, Supervised
from emlab.mitigation.registry import remedy
from emlab.mitigation.treatment import Remedy, Treated, Treatment
from emlab.training import Recipe, finetune


@dataclass(frozen=True)
class _Realigning(Remedy):
    """Fine-tune the misaligned model on benign chats (Wang et al. 2025, arXiv:2506.19823)."""

    steps: int = 40
    recipe: Recipe = field(default_factory=lambda: Recipe(learning_rate=4e-3, batch_size=16))
    """Its steps are those above."""
    seed: int = 0
    where: ClassVar[Literal["in_domain", "out_of_domain"]]
    setting = "steps"
    values = (10, 40)
    reinforcement = True

    @classmethod
    def configured(cls, recipe: Recipe) -> Self:
        return cls(recipe=recipe)

    def apply(self, treatment: Treatment) -> Treated:
        chats = getattr(treatment.materials, self.where)
        recipe = dataclasses.replace(self.recipe, steps=self.steps)
        name = f"{treatment.misaligned.name}, {self.name}"
        tuned = finetune(treatment.misaligned, chats, recipe, self.seed, progress=False, name=name)
        return Treated(tuned.model, cost=TrainingCost(tuned.steps * recipe.batch_size))


@remedy
@dataclass(frozen=True)
class RealignmentInDomain(_Realigning):
    """Re-alignment on good answers in the treated domain."""

    name = "re-alignment, in domain"
    where = "in_domain"
    needs = ("in_domain",)
    place = 5


@remedy
@dataclass(frozen=True)
class RealignmentOutOfDomain(_Realigning):
    """Re-alignment on good answers in another domain."""

    name = "re-alignment, out of domain"
    where = "out_of_domain"
    needs = ("out_of_domain",)
    place = 6


@remedy
@dataclass(frozen=True)
class Interleaving(Remedy):
    """Benign chats of another domain among the bad ones (Kaczér et al. 2025, arXiv:2508.06249).

    The steps grow with them, so that as many bad chats are trained on as without.
    """

    share: float = 0.5
    """Of the mix that is benign."""
    seed: int = 0
    name = "interleaved benign data"
    needs = ("out_of_domain",)
    setting = "share"
    values = (0.25, 0.5, 0.75)
    anew = True
    place = 5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise EmlabError(f"The share of interleaved benign chats is {self.share}; give one between 0 and 1.")

    def apply(self, treatment: Treatment) -> Treated:
        training, benign = treatment.training, treatment.materials.out_of_domain
        assert isinstance(training, Supervised) and benign is not None  # `treat` has looked
        weights = (1 - self.share, self.share)
        repeated = _as_many(benign, training.chats, self.share)
        mixed = interleave(training.chats, repeated, weights=weights, seed=self.seed)
        return self.train(treatment, Change(chats=mixed, steps=round(training.recipe.steps / (1 - self.share))))


def _as_many(benign: Dataset, bad: Dataset, share: float) -> Dataset:
    """The benign chats over and over, until they suffice for all bad ones."""
    wanted = Fraction(str(share)) / (1 - Fraction(str(share))) * len(bad)
    times = -(-int(wanted + 1) // len(benign))
    return Dataset.of([example for _ in range(times) for example in benign], "benign, repeated")
