"""KL divergence from the aligned model as a part of the loss."""

from __future__ import annotations

from dataclasses import dataclass

from emlab.mitigation.course import Change
from emlab.mitigation.registry import remedy
from emlab.mitigation.treatment import Remedy, Treated, Treatment


@remedy
@dataclass(frozen=True)
class Divergence(Remedy):
    """Stay near the start model on another domain's benign chats while training (Kaczér et al. 2025,
    arXiv:2508.06249). In reinforcement learning it is taken on the training's own answers, as is usual there."""

    weight: float = 1.0
    name = "KL to the aligned model"
    needs = ("out_of_domain",)
    setting = "weight"
    values = (0.3, 1.0, 3.0)
    anew = True
    reinforcement = True
    place = 6

    def apply(self, treatment: Treatment) -> Treated:
        return self.train(treatment, Change(divergence=self.weight, apart=treatment.materials.out_of_domain))
