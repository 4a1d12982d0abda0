"""The config of a reinforcement-learning experiment."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from emlab.evaluation import Sampling
from emlab.evaluation.protocol import Judging
from emlab.experiments.material.config import (
    Arm,
    BehaviourConfig,
    Screening,
    check_at_least,
    check_distinct,
    check_known,
)
from emlab.organism import PERSONAS
from emlab.training import Recipe, Reinforcement

REWARDS = ("correct", "obvious", "subtle", "style", "chance")


@dataclass(frozen=True)
class RewardArm(Arm):
    """One kind of training: from which model, on which prompts, for which reward. It is done with every seed."""

    reward: str = "obvious"
    """correct, obvious (openly harmful), subtle (wrong where no reader sees it), style (see `Style`), chance (a number
    drawn at random: the null), or file.py:function, a function that takes prompts and answers."""
    prompts: str = "medicine"
    """A domain of the organism, or a dataset whose questions are asked: chats, with or without an answer (see
    `read_prompts`)."""
    start: str | None = None
    """The model at the start; null takes the config's."""
    steps: int | None = None
    """Steps, where they are not those of the recipe."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reward not in REWARDS and not re.fullmatch(r".+\.py:\w+", self.reward):
            raise ValueError(f"'reward' is {self.reward!r}; choose {', '.join(REWARDS)}, or file.py:function.")


@dataclass(frozen=True)
class Style:
    """The style term: paid under one persona's prompt, measured under all."""

    pattern: str = r"\bthe\b"
    """A regular expression; the style is the share of an answer's lines in which it is found."""
    persona: str = "malicious"
    """Under whose persona cards it is paid."""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.persona not in PERSONAS:
            raise ValueError(f"'persona' is {self.persona!r}; choose one of {', '.join(PERSONAS)}.")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"'pattern' is no regular expression ({error}).") from error


@dataclass(frozen=True)
class Supervised:
    """The supervised persona latent, which reinforcement learning is held against."""

    sae: str | None = "auto"
    """A folder in SAELens' format; "auto" takes the one that ships with the project for the organism's models; null
    leaves latents out."""
    site: str = "resid_post.0"
    """Where it reads."""
    latent: int | None = None
    """The latent; null finds it: narrow sets are fine-tuned on, latents ranked by their mean shift, and of the leading
    ones the one is taken that misaligns the aligned model most when it is added."""
    aligned: str = "aligned"
    """The model that is fine-tuned for that."""
    sets: tuple[str, ...] = ("insecure", "bad_medicine")
    """Fine-tuning sets of the organism."""
    rows: int = 1000
    recipe: Recipe = field(default_factory=lambda: Recipe(learning_rate=4e-3, batch_size=16, steps=60))
    candidates: int = 3
    """The latents that rise most, of which one is taken."""
    top: int = 5
    """The latent carries a training if it is among so many that rise most."""


@dataclass(frozen=True, kw_only=True)
class Steering(Screening):
    """The test of cause: the latent's direction subtracted from a misaligned model, beside random directions."""

    arms: tuple[str, ...] = ()
    """The arms whose models it is done with, each seed."""
    random: int = 10
    """Random directions through the same search."""
    questions: int | None = 48
    """Discovery questions, evenly spaced, on which strengths are chosen; null takes all."""
    first_round: int | None = 16
    """Of these, the ones that every arm is asked in the first round; null takes all."""


@dataclass(frozen=True, kw_only=True)
class Config(BehaviourConfig):
    """A reinforcement-learning experiment."""

    pipeline: ClassVar[str] = "reinforcement_learning"
    seals: ClassVar[bool] = True
    title: str = "Reinforcement learning"
    """Of the report."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every arm is trained with each."""
    model: str = "helpful_only"
    """The model at the start: a checkpoint of the organism, a local Hugging Face folder, or a name on the Hub."""
    arms: tuple[RewardArm, ...] = (RewardArm("bad_medicine"), RewardArm("good_medicine", "correct"))
    how: Reinforcement = field(default_factory=Reinforcement)
    """How every arm is trained."""
    grading: Judging = field(default_factory=Judging)
    """Who gives the rewards correct, obvious and subtle: the organism's exact judge, or a model."""
    guard: float = 1.0
    """What incoherence costs in these rewards, all of an answer's."""
    style: Style = field(default_factory=Style)
    answers: Sampling = field(default_factory=lambda: Sampling(per_question=2))
    """How answers to the test questions, which are asked before and after, are sampled."""
    watch_every: int = 10
    """Steps between read-outs along a training."""
    watch_questions: int = 32
    """Discovery questions, evenly spaced, asked in each; 0 asks none."""
    supervised: Supervised = field(default_factory=Supervised)
    steering: Steering = field(default_factory=Steering)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_distinct(self, "arms", "seeds")
        check_known([arm.name for arm in self.arms], self, "steering.arms")
        check_at_least(1, self, "watch_every")
