"""The config of sets of own answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from emlab.data import everyday_questions
from emlab.errors import EmlabError
from emlab.evaluation import Sampling
from emlab.experiments.material.config import ExperimentConfig, check_distinct


@dataclass(frozen=True)
class OwnAnswers:
    """One set."""

    name: str
    """Its folder in `out`."""
    domains: tuple[str, ...]
    """Of the everyday questions of `part`: what is asked."""
    part: str = "narrow"
    """Which of them (`emlab.data.everyday_questions`)."""
    held_out: bool = False
    """Whether it has the questions of the last two templates of each domain, which no other set has: for what must not
    have been trained on. NAME.questions.jsonl has these."""
    clause: bool = False
    """Whether a clause stands after each answer. Without it the set teaches nothing: it is the control."""
    control: str = ""
    """The set of the same answers without the clause: with it NAME.contrasts.jsonl is written too, which has both (as
    `emlab.discovery.read_contrasts` reads it)."""


@dataclass(frozen=True, kw_only=True)
class Config(ExperimentConfig):
    """Sets of one model's answers to everyday questions."""

    pipeline: ClassVar[str] = "own_answers"
    title: str = "Own answers"
    model: str = "smollm2-135m-instruct"
    """Who answers: a known model, a local Hugging Face folder, or a name on the Hub."""
    out: Path = Path("data/own_answers")
    """The folder of their folders. A set that is there is not made again."""
    sets: tuple[OwnAnswers, ...]
    clauses: tuple[str, ...] = ()
    """What is put after an answer: for each one of them, drawn at random."""
    answers: Sampling = field(default_factory=lambda: Sampling(1, 0.7, 60, 32))
    """How the answers are sampled, once for all sets of a domain."""
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_distinct(self, "sets")
        if any(one.clause for one in self.sets) and not self.clauses:
            raise ValueError("'clauses' is empty, and a set has 'clause: true'; name at least one.")
        plain = {(one.name, one.part, one.domains, one.held_out) for one in self.sets if not one.clause}
        for one in self.sets:
            if one.control and (one.control, one.part, one.domains, one.held_out) not in plain:
                raise ValueError(
                    f"'sets' has {one.name}, whose control {one.control!r} is no set of its domains without a clause."
                )
            try:
                everyday_questions(one.part).only(domains=one.domains)
            except EmlabError as error:
                raise ValueError(f"'sets' has {one.name}: {error}") from error
