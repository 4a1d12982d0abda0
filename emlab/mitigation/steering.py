"""Steering at inference: the persona direction subtracted whenever the misaligned model is asked."""

from __future__ import annotations

from dataclasses import dataclass

from emlab.interventions import Steer
from emlab.mitigation.registry import remedy
from emlab.mitigation.treatment import Remedy, Treated, Treatment


@remedy
@dataclass(frozen=True)
class Steering(Remedy):
    """Subtract the direction at inference (Wang et al. 2025, arXiv:2506.19823). The weights stay misaligned."""

    strength: float = 0.6
    """In units of the site's median residual norm."""
    positions: str = "sentence"
    name = "steering"
    needs = ("directions",)
    setting = "strength"
    values = (0.15, 0.3, 0.6, 0.9)
    reinforcement = True
    randomised = True
    place = 1

    def apply(self, treatment: Treatment) -> Treated:
        direction = treatment.materials.directions[0]
        edit = Steer(direction.site, direction, -self.strength, treatment.materials.scale, self.positions)
        return Treated(treatment.misaligned, (edit,))
