"""Ablation: persona directions projected out of the stream, or set to what the aligned model has along them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from emlab.interventions import Ablate, Clamp
from emlab.mitigation.registry import remedy
from emlab.mitigation.treatment import Remedy, Treated, Treatment
from emlab.models import ablate_everywhere, bake


@remedy
@dataclass(frozen=True)
class Ablation(Remedy):
    """Project the leading directions out at their site whenever the misaligned model is asked."""

    n: int = 1
    """How many of the directions."""
    positions: str = "sentence"
    name = "ablation"
    needs = ("directions",)
    setting = "n"
    values = (1, 2)
    reinforcement = True
    place = 2

    def apply(self, treatment: Treatment) -> Treated:
        directions = treatment.materials.some(self.n, self.name)
        return Treated(treatment.misaligned, (Ablate(directions[0].site, directions, self.positions),))


@remedy
@dataclass(frozen=True)
class MeanAblation(Remedy):
    """Set what lies along the leading directions to the aligned model's mean, whenever the misaligned model is asked.

    Where the aligned model lies off zero, to project a direction out is to push the model toward the other side; the
    mean is the usual baseline then (Wang et al. 2022, arXiv:2211.00593).
    """

    n: int = 1
    positions: str = "sentence"
    name = "mean ablation"
    needs = ("directions", "mean")
    setting = "n"
    values = (1, 2)
    reinforcement = True
    place = 3

    def apply(self, treatment: Treatment) -> Treated:
        directions = treatment.materials.some(self.n, self.name)
        basis = torch.linalg.qr(torch.stack([d.vector.float() for d in directions]).T).Q.T  # (n, d_model), orthonormal
        assert treatment.materials.mean is not None  # `treat` has looked

        def along(h: Tensor) -> Tensor:
            return h @ basis.T.to(h)

        edit = Clamp(directions[0].site, along, basis, basis @ treatment.materials.mean.float(), self.positions)
        return Treated(treatment.misaligned, (edit,))


@remedy
@dataclass(frozen=True)
class BakedAblation(Remedy):
    """Project them out of everything that is written into the stream, in the weights (Arditi et al. 2024,
    arXiv:2406.11717): no hook is needed afterwards."""

    n: int = 1
    name = "baked ablation"
    needs = ("directions",)
    setting = "n"
    values = (1, 2)
    reinforcement = True
    place = 4

    def apply(self, treatment: Treatment) -> Treated:
        directions = treatment.materials.some(self.n, self.name)
        model = treatment.misaligned
        return Treated(bake(model, ablate_everywhere(directions, model), f"{model.name}, {self.name}"))
