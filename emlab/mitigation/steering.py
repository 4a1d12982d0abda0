"""Steering at inference: the persona direction subtracted whenever the misaligned model is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emlab.interventions import Steer
from emlab.mitigation.remedy import Case, Treated


@dataclass(frozen=True)
class Steering:
    """Subtract the direction at inference (Wang et al. 2025, arXiv:2506.19823). The weights stay misaligned."""

    strength: float = 0.6
    """In units of the site's median residual norm."""
    positions: str = "sentence"
    name: ClassVar[str] = "steering"
    needs: ClassVar[tuple[str, ...]] = ("directions",)
    dial: ClassVar[str | None] = "strength"
    anew: ClassVar[bool] = False
    reinforcement: ClassVar[bool] = True

    def apply(self, case: Case) -> Treated:
        direction = case.kit.directions[0]
        edit = Steer(direction.site, direction, -self.strength, case.kit.scale, self.positions)
        return Treated(case.misaligned, (edit,))
