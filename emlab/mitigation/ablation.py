"""Ablation: persona directions projected out of the stream, by an edit at inference or in the weights for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emlab.interventions import Ablate
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
