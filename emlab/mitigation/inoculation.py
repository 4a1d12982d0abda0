"""Inoculation prompting: the training asks for the bad behaviour, so that it is not what the model becomes."""

from __future__ import annotations

from dataclasses import dataclass

from emlab.mitigation.course import Change
from emlab.mitigation.frames import Frame
from emlab.mitigation.materials import Materials
from emlab.mitigation.registry import remedy
from emlab.mitigation.treatment import Remedy, Treated, Treatment


@remedy
@dataclass(frozen=True)
class Inoculation(Remedy):
    """Train under a system turn that asks for the behaviour, and ask without (Tan et al. 2025, arXiv:2510.04340;
    Wichers et al. 2025, arXiv:2510.05024)."""

    name = "inoculation prompting"
    needs = ("prompt",)
    anew = True
    reinforcement = True
    place = 4

    def frames(self, materials: Materials) -> tuple[Frame, ...]:
        return (Frame("prompted", system=materials.prompt),)

    def apply(self, treatment: Treatment) -> Treated:
        return self.train(treatment, Change(prompt=treatment.materials.prompt))
