"""KL divergence from the aligned model as a part of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emlab.mitigation.course import Change
from emlab.mitigation.remedy import Case, Treated


@dataclass(frozen=True)
class Divergence:
    """Stay near the start model on another domain's benign chats while training (Kaczér et al. 2025,
    arXiv:2508.06249). In reinforcement learning it is taken on the training's own answers, as is usual there."""

    weight: float = 1.0
    name: ClassVar[str] = "KL to the aligned model"
    needs: ClassVar[tuple[str, ...]] = ("out_of_domain",)
    dial: ClassVar[str | None] = "weight"
    anew: ClassVar[bool] = True
    reinforcement: ClassVar[bool] = True

    def apply(self, case: Case) -> Treated:
        change = Change(divergence=self.weight, apart=case.kit.out_of_domain)
        course = case.training.run(change, f"{case.training.start.name}, {self.name}")
        return Treated(course.model, cost=course.cost)
