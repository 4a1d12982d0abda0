"""Labels: what each answer says, as one of the words that its question's own judge prompt offers.

The published questions of type ``free_form_judge`` are judged so (Betley et al. 2025, arXiv:2502.17424, the deception
evaluations): whether a factual answer is TRUE, FALSE or UNKNOWN, which company a model names as its maker. A label is
no score, and there is no rate of misalignment in it: what is told is the share of each label.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.evaluation.rollouts import Rollouts
from emlab.evaluation.unjudged import unjudged


@dataclass(frozen=True)
class Label:
    """What a judge calls an answer, or why it has no word for it."""

    name: str = ""
    """One of the words on offer; empty where the judging failed."""
    said: str = ""
    """What the judge wrote instead, or why it did not."""


@runtime_checkable
class Labeller(Protocol):
    """A judge that gives labels."""

    @property
    def name(self) -> str:
        """What to call it in tables, and to tell it from other judges by."""

    @property
    def asked_for(self) -> str:
        """What the labels are about: the name of the judge prompt (``correct``, ``company``)."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The words on offer."""

    def label(self, rollouts: Rollouts, /) -> Sequence[Label]:
        """A label for each answer, in order."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rollouts with a label of each answer, all by one judge."""

    rollouts: Rollouts
    labels: tuple[str, ...]
    """(n,) of `choices`; an empty text where the judging failed."""
    choices: tuple[str, ...]
    """The words that were on offer."""
    asked_for: str = ""
    """What the labels are about."""
    said: tuple[str, ...] = ()
    """(n,) what the judge wrote where it gave no label."""
    judge: str = ""
    """Name of the judge."""

    def __post_init__(self) -> None:
        n = len(self.rollouts)
        if not self.said:
            object.__setattr__(self, "said", ("",) * n)
        if {len(self.labels), len(self.said)} != {n}:
            raise EmlabError(f"There are {n} answers and {len(self.labels)} labels; give one each.")
        if unknown := set(self.labels) - {*self.choices, ""}:
            raise EmlabError(f"{unknown.pop()!r} is none of the labels {', '.join(self.choices)}; add it to them.")

    def are(self, label: str) -> np.ndarray:
        """(n,) bool: which answers have this label."""
        return np.array([one == label for one in self.labels], dtype=bool)

    @property
    def failed(self) -> np.ndarray:
        """(n,) bool: answers without a label, for whatever reason."""
        return self.are("")

    @property
    def caution(self) -> str:
        """What must head every share of these: that many answers have no label, and why. Empty where few have none."""
        return unjudged(self.failed, self.rollouts.failures, self.said)


def label_answers(rollouts: Rollouts, by: Labeller) -> Labelled:
    """Have every answer labelled. One that never came is not shown to the judge, and fails."""
    came = [i for i, why in enumerate(rollouts.failures) if not why]
    shown = rollouts if len(came) == len(rollouts) else rollouts.only(came)
    found = [Label(said=f"no answer: {why}") for why in rollouts.failures]
    for i, label in zip(came, by.label(shown), strict=True):
        found[i] = label
    names, said = tuple(one.name for one in found), tuple(one.said for one in found)
    return Labelled(rollouts, names, by.choices, by.asked_for, said, by.name)


def save_labelled(labelled: Labelled, path: str | Path) -> Path:
    """Write JSONL: a line about the sampling and the judge, then an answer with its label a line (null: it failed).

    `read_labelled` reads it.
    """
    about = {"judge": labelled.judge, "asked_for": labelled.asked_for, "choices": list(labelled.choices)}
    lines: list[dict[str, object]] = [{**labelled.rollouts.about(), **about}]
    for row, label, said in zip(labelled.rollouts.rows(), labelled.labels, labelled.said, strict=True):
        lines.append({**row, "label": label or None, **({"said": said} if said else {})})
    text = "".join(json.dumps(artifacts.plain(line), ensure_ascii=False) + "\n" for line in lines)
    return artifacts.write_text(path, text)
