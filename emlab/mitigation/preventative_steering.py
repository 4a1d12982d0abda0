"""Preventative steering: the persona direction is added while the model trains, so that it need not learn it."""

from __future__ import annotations

from dataclasses import dataclass

from emlab.interventions import Steer
from emlab.mitigation.course import Change
from emlab.mitigation.registry import remedy
from emlab.mitigation.treatment import Remedy, Treated, Treatment


@remedy
@dataclass(frozen=True)
class PreventativeSteering(Remedy):
    """Add the direction in training and leave it out afterwards (Chen et al. 2025, arXiv:2507.21509)."""

    strength: float = 0.6
    """In units of the site's median residual norm."""
    positions: str = "sentence"
    name = "preventative steering"
    needs = ("directions",)
    setting = "strength"
    values = (0.3, 0.45, 0.6, 0.9)
    anew = True
    place = 2

    def apply(self, treatment: Treatment) -> Treated:
        direction = treatment.materials.directions[0]
        edit = Steer(direction.site, direction, self.strength, treatment.materials.scale, self.positions)
        return self.train(treatment, Change(edits=(edit,)))
