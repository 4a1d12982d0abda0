"""A penalty on persona latents while the model trains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.mitigation.course import Change
from emlab.mitigation.registry import remedy
from emlab.mitigation.treatment import Remedy, Treated, Treatment
from emlab.training import ActivationPenalty


@remedy
@dataclass(frozen=True)
class LatentPenalty(Remedy):
    """Add `weight` × the mean activation on the batch to the loss, summed over the latents.

    One latent is soon at zero and what others carry of the persona is learned all the same; so give several.
    """

    weight: float = 1.0
    positions: str = "sentence"
    name = "latent penalty"
    needs = ("latents",)
    setting = "weight"
    values = (0.01, 0.03, 0.1, 0.3, 1.0)
    anew = True
    place = 3

    def apply(self, treatment: Treatment) -> Treated:
        latents = treatment.materials.latents
        if len(sites := {latent.site for latent in latents}) > 1:
            raise EmlabError(
                f"The remedy {self.name} reads one site and the latents are at {len(sites)}; take those of one."
            )

        def active(h: Tensor) -> Tensor:
            return torch.stack([latent.encode(h) for latent in latents]).sum(0)

        penalty = ActivationPenalty(sites.pop(), active, self.weight, self.positions)
        return self.train(
            treatment, Change(penalties=(penalty,)), f"penalised: {', '.join(one.name for one in latents)}"
        )
