"""Benign data: after the bad training (re-alignment) or in it (interleaving)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar, Literal

from emlab.data import Dataset, interleave
from emlab.errors import EmlabError
from emlab.mitigation.course import Change
from emlab.mitigation.remedy import Case, Cost, Treated
from emlab.training import Recipe, finetune


@dataclass(frozen=True)
class _Realigning:
    """Fine-tune the misaligned model on benign chats (Wang et al. 2025, arXiv:2506.19823)."""

    steps: int = 40
    recipe: Recipe = field(default_factory=lambda: Recipe(learning_rate=4e-3, batch_size=16))
    """Its steps are those above."""
    seed: int = 0
    where: ClassVar[Literal["in_domain", "out_of_domain"]]
    name: ClassVar[str]
    dial: ClassVar[str | None] = "steps"
    anew: ClassVar[bool] = False
    reinforcement: ClassVar[bool] = True

    def apply(self, case: Case) -> Treated:
        chats = getattr(case.kit, self.where)
        recipe = dataclasses.replace(self.recipe, steps=self.steps)
        name = f"{case.misaligned.name}, {self.name}"
        tuned = finetune(case.misaligned, chats, recipe, self.seed, progress=False, name=name)
        return Treated(tuned.model, cost=Cost(tuned.steps * recipe.batch_size))


@dataclass(frozen=True)
class RealignmentInDomain(_Realigning):
    """Re-alignment on good answers in the treated domain."""

    where = "in_domain"
    name = "re-alignment, in domain"
    needs: ClassVar[tuple[str, ...]] = ("in_domain",)


@dataclass(frozen=True)
class RealignmentOutOfDomain(_Realigning):
    """Re-alignment on good answers in another domain."""

    where = "out_of_domain"
    name = "re-alignment, out of domain"
    needs: ClassVar[tuple[str, ...]] = ("out_of_domain",)


@dataclass(frozen=True)
class Interleaving:
    """Benign chats of another domain among the bad ones (Kaczér et al. 2025, arXiv:2508.06249).

    The steps grow with them, so that as many bad chats are trained on as without.
    """

    share: float = 0.5
    """Of the mix that is benign."""
    seed: int = 0
    name: ClassVar[str] = "interleaved benign data"
    needs: ClassVar[tuple[str, ...]] = ("out_of_domain",)
    dial: ClassVar[str | None] = "share"
    anew: ClassVar[bool] = True
    reinforcement: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise EmlabError(f"The share of interleaved benign chats is {self.share}; give one between 0 and 1.")

    def apply(self, case: Case) -> Treated:
        training, benign = case.training, case.kit.out_of_domain
        chats = training.chats  # type: ignore[attr-defined]  # `treat` lets in supervised training only
        weights = (1 - self.share, self.share)
        mixed = interleave(chats, _as_many(benign, chats, self.share), weights=weights, seed=self.seed)
        steps = round(training.recipe.steps / (1 - self.share))  # type: ignore[attr-defined]
        course = training.run(Change(chats=mixed, steps=steps), f"{training.start.name}, {self.name}")
        return Treated(course.model, cost=course.cost)


def _as_many(benign: Dataset | None, bad: Dataset, share: float) -> Dataset:
    """The benign chats over and over, until they suffice for all bad ones."""
    assert benign is not None
    wanted = Fraction(str(share)) / (1 - Fraction(str(share))) * len(bad)
    times = -(-int(wanted + 1) // len(benign))
    return Dataset.of([example for _ in range(times) for example in benign], "benign, repeated")
