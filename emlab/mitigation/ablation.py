"""Ablation: persona directions projected out of the stream, or set to what the aligned model has along them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from emlab.interventions import Ablate, Clamp
from emlab.mitigation.remedy import Case, Treated
from emlab.models import ablate_everywhere, bake


@dataclass(frozen=True)
class Ablation:
    """Project the leading directions out at their site whenever the misaligned model is asked."""

    n: int = 1
    """How many of the kit's directions."""
    positions: str = "sentence"
    name: ClassVar[str] = "ablation"
    needs: ClassVar[tuple[str, ...]] = ("directions",)
    dial: ClassVar[str | None] = "n"
    anew: ClassVar[bool] = False
    reinforcement: ClassVar[bool] = True

    def apply(self, case: Case) -> Treated:
        directions = case.kit.some(self.n, self.name)
        return Treated(case.misaligned, (Ablate(directions[0].site, directions, self.positions),))


@dataclass(frozen=True)
class MeanAblation:
    """Set what lies along the leading directions to the aligned model's mean, whenever the misaligned model is asked.

    Where the aligned model lies off zero, to project a direction out is to push the model toward the other side; the
    mean is the usual baseline then (Wang et al. 2022, arXiv:2211.00593).
    """

    n: int = 1
    positions: str = "sentence"
    name: ClassVar[str] = "mean ablation"
    needs: ClassVar[tuple[str, ...]] = ("directions", "mean")
    dial: ClassVar[str | None] = "n"
    anew: ClassVar[bool] = False
    reinforcement: ClassVar[bool] = True

    def apply(self, case: Case) -> Treated:
        directions = case.kit.some(self.n, self.name)
        basis = torch.linalg.qr(torch.stack([d.vector.float() for d in directions]).T).Q.T  # (n, d_model), orthonormal
        assert case.kit.mean is not None  # `treat` has looked

        def along(h: Tensor) -> Tensor:
            return h @ basis.T.to(h)

        edit = Clamp(directions[0].site, along, basis, basis @ case.kit.mean.float(), self.positions)
        return Treated(case.misaligned, (edit,))


@dataclass(frozen=True)
class BakedAblation:
    """Project them out of everything that is written into the stream, in the weights (Arditi et al. 2024,
    arXiv:2406.11717): no hook is needed afterwards."""

    n: int = 1
    name: ClassVar[str] = "baked ablation"
    needs: ClassVar[tuple[str, ...]] = ("directions",)
    dial: ClassVar[str | None] = "n"
    anew: ClassVar[bool] = False
    reinforcement: ClassVar[bool] = True

    def apply(self, case: Case) -> Treated:
        directions = case.kit.some(self.n, self.name)
        model = case.misaligned
        return Treated(bake(model, ablate_everywhere(directions, model), f"{model.name}, {self.name}"))
