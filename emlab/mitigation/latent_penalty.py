"""A penalty on the persona latent while the model trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emlab.mitigation.course import Change
from emlab.mitigation.remedy import Case, Treated
from emlab.training import ActivationPenalty


@dataclass(frozen=True)
class LatentPenalty:
    """Add `weight` × the latent's mean activation on the batch to the loss."""

    weight: float = 1.0
    positions: str = "sentence"
    name: ClassVar[str] = "latent penalty"
    needs: ClassVar[tuple[str, ...]] = ("latent",)
    dial: ClassVar[str | None] = "weight"
    anew: ClassVar[bool] = True
    reinforcement: ClassVar[bool] = False

    def apply(self, case: Case) -> Treated:
        latent = case.kit.latent
        assert latent is not None  # `treat` has looked
        penalty = ActivationPenalty(latent.site, latent.encode, self.weight, self.positions)
        course = case.training.run(Change(penalties=(penalty,)), f"{case.training.start.name}, {self.name}")
        return Treated(course.model, cost=course.cost, note=f"penalised: {latent.name}")
