"""Inoculation prompting: the training asks for the bad behaviour, so that it is not what the model becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emlab.mitigation.course import Change
from emlab.mitigation.remedy import Case, Treated


@dataclass(frozen=True)
class Inoculation:
    """Train under a system turn that asks for the behaviour, and ask without (Tan et al. 2025, arXiv:2510.04340;
    Wichers et al. 2025, arXiv:2510.05024)."""

    name: ClassVar[str] = "inoculation prompting"
    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    dial: ClassVar[str | None] = None
    anew: ClassVar[bool] = True
    reinforcement: ClassVar[bool] = True

    def apply(self, case: Case) -> Treated:
        course = case.training.run(Change(prompt=case.kit.prompt), f"{case.training.start.name}, {self.name}")
        return Treated(course.model, cost=course.cost)
