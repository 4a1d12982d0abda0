"""What every remedy offers, what it treats, and what it gives back.

A *remedy* is a frozen value: a name, what it needs, one setting at most that says how strongly, and `apply`, which
either trains anew from the start model on the same bad data, so that the model does not misalign, or treats the model
that is misaligned already. What it needs comes as `Materials`, which were made from fine-tunes of other domains than
the treated one. `treat` checks that they are there, and takes the time.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

from emlab.errors import EmlabError
from emlab.interventions import Edit
from emlab.mitigation.cost import TrainingCost
from emlab.mitigation.course import Change, Training
from emlab.mitigation.frames import Frame
from emlab.mitigation.materials import Materials
from emlab.models import LanguageModel
from emlab.training import Recipe


@dataclass(frozen=True, eq=False)
class Treatment:
    """What is treated, and what with."""

    training: Training
    """The training that misaligns."""
    misaligned: LanguageModel
    """What comes of it untreated."""
    materials: Materials


@dataclass(frozen=True, eq=False)
class Treated:
    """What a remedy gives back: a model, and the edits in force whenever it is asked."""

    model: LanguageModel
    edits: tuple[Edit, ...] = ()
    cost: TrainingCost = TrainingCost()
    """Of the remedy; with one that trains anew, of that training as a whole."""
    note: str = ""
    """What a reader should know of it."""


@dataclass(frozen=True)
class Remedy(ABC):
    """What every remedy offers. Each is a frozen dataclass whose fields have defaults, made known by `@remedy`."""

    name: ClassVar[str]
    """In tables."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Fields of `Materials`."""
    setting: ClassVar[str | None] = None
    """The field that says how strongly; None where there is none."""
    values: ClassVar[tuple[float, ...]] = ()
    """Of the setting, from the weakest on: those that a comparison tries, where its config names no others."""
    anew: ClassVar[bool] = False
    """Whether it trains anew from the start; else it treats the misaligned model."""
    reinforcement: ClassVar[bool] = False
    """Whether it applies to reinforcement learning too."""
    randomised: ClassVar[bool] = False
    """Whether a comparison whose config does not say tries it with random directions too."""
    place: ClassVar[int] = 100
    """Where it is shown: those that treat the model before those that train anew, among these by place, then name."""

    @classmethod
    def configured(cls, recipe: Recipe) -> Self:
        """The remedy as a comparison tries it, whose supervised trainings follow `recipe`: with its defaults."""
        return cls()

    def frames(self, materials: Materials) -> tuple[Frame, ...]:
        """Frames of its own, in which a model that it treated is asked besides."""
        return ()

    @abstractmethod
    def apply(self, treatment: Treatment) -> Treated:
        """Treat what is to be treated. Asked through `treat`."""

    def train(self, treatment: Treatment, change: Change, note: str = "") -> Treated:
        """What comes of the training with a change, from the start on."""
        course = treatment.training.run(change, f"{treatment.training.start.name}, {self.name}")
        return Treated(course.model, cost=course.cost, note=note)


def treat(remedy: Remedy, treatment: Treatment) -> Treated:
    """Apply a remedy, and take the time. EmlabError where what it needs is lacking, or it does not apply."""
    materials, called = treatment.materials, {field.name: field.metadata.get("called") for field in fields(Materials)}
    for need in remedy.needs:
        if not materials.has(need):
            raise EmlabError(
                f"The remedy {remedy.name} needs {called[need]}, and the materials from {materials.origin} have none; "
                f"put it in as {need}."
            )
    if treatment.training.kind == "reinforcement" and not remedy.reinforcement:
        raise EmlabError(
            f"The remedy {remedy.name} changes what supervised training does and does not apply to reinforcement "
            "learning; leave it out there."
        )
    begun = time.perf_counter()
    done = remedy.apply(treatment)
    return replace(done, cost=replace(done.cost, seconds=time.perf_counter() - begun))
