"""Preventative steering: the persona direction is added while the model trains, so that it need not learn it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emlab.interventions import Steer
from emlab.mitigation.course import Change
from emlab.mitigation.remedy import Case, Treated


@dataclass(frozen=True)
class PreventativeSteering:
    """Add the direction in training and leave it out afterwards (Chen et al. 2025, arXiv:2507.21509)."""

    strength: float = 0.6
    """In units of the site's median residual norm."""
    positions: str = "sentence"
    name: ClassVar[str] = "preventative steering"
    needs: ClassVar[tuple[str, ...]] = ("directions",)
    dial: ClassVar[str | None] = "strength"
    anew: ClassVar[bool] = True
    reinforcement: ClassVar[bool] = False

    def apply(self, case: Case) -> Treated:
        direction = case.kit.directions[0]
        edit = Steer(direction.site, direction, self.strength, case.kit.scale, self.positions)
        course = case.training.run(Change(edits=(edit,)), f"{case.training.start.name}, {self.name}")
        return Treated(course.model, cost=course.cost)
