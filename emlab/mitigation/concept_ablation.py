"""Concept-ablation fine-tuning: the model learns with the persona directions projected out, and is then let go."""

from __future__ import annotations

from dataclasses import dataclass

from emlab.interventions import Ablate
from emlab.mitigation.course import Change
from emlab.mitigation.registry import remedy
from emlab.mitigation.treatment import Remedy, Treated, Treatment


@remedy
@dataclass(frozen=True)
class ConceptAblation(Remedy):
    """Train with the directions projected out, and ask without (CAFT; Casademunt et al. 2025, arXiv:2507.16795)."""

    n: int = 1
    """How many of the directions."""
    positions: str = "all"
    name = "concept ablation"
    needs = ("directions",)
    setting = "n"
    values = (1, 2)
    anew = True
    randomised = True
    place = 1

    def apply(self, treatment: Treatment) -> Treated:
        directions = treatment.materials.some(self.n, self.name)
        edit = Ablate(directions[0].site, directions, self.positions)
        return self.train(treatment, Change(edits=(edit,)))
