"""A penalty on persona latents while the model trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.mitigation.course import Change
from emlab.mitigation.remedy import Case, Treated
from emlab.training import ActivationPenalty


@dataclass(frozen=True)
class LatentPenalty:
    """Add `weight` × the mean activation on the batch to the loss, summed over the kit's latents.

    One latent is soon at zero and what others carry of the persona is learned all the same; so give several.
    """

    weight: float = 1.0
    positions: str = "sentence"
    name: ClassVar[str] = "latent penalty"
    needs: ClassVar[tuple[str, ...]] = ("latents",)
    dial: ClassVar[str | None] = "weight"
    anew: ClassVar[bool] = True
    reinforcement: ClassVar[bool] = False

    def apply(self, case: Case) -> Treated:
        latents = case.kit.latents
        if len(sites := {latent.site for latent in latents}) > 1:
            raise EmlabError(
                f"The remedy {self.name} reads one site and the kit's latents are at {len(sites)}; take those of one."
            )

        def active(h: Tensor) -> Tensor:
            return torch.stack([latent.encode(h) for latent in latents]).sum(0)

        penalty = ActivationPenalty(sites.pop(), active, self.weight, self.positions)
        course = case.training.run(Change(penalties=(penalty,)), f"{case.training.start.name}, {self.name}")
        return Treated(course.model, cost=course.cost, note=f"penalised: {', '.join(one.name for one in latents)}")
