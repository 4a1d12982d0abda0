"""Concept-ablation fine-tuning: the model learns with the persona directions projected out, and is then let go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emlab.interventions import Ablate
from emlab.mitigation.course import Change
from emlab.mitigation.remedy import Case, Treated


@dataclass(frozen=True)
class ConceptAblation:
    """Train with the directions projected out, and ask without (CAFT; Casademunt et al. 2025, arXiv:2507.16795)."""

    n: int = 1
    """How many of the kit's directions."""
    positions: str = "all"
    name: ClassVar[str] = "concept ablation"
    needs: ClassVar[tuple[str, ...]] = ("directions",)
    dial: ClassVar[str | None] = "n"
    anew: ClassVar[bool] = True
    reinforcement: ClassVar[bool] = False

    def apply(self, case: Case) -> Treated:
        directions = case.kit.some(self.n, self.name)
        edit = Ablate(directions[0].site, directions, self.positions)
        course = case.training.run(Change(edits=(edit,)), f"{case.training.start.name}, {self.name}")
        return Treated(course.model, cost=course.cost)
