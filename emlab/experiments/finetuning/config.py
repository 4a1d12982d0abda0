"""The config of a grid of fine-tunes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from emlab.evaluation import Sampling
from emlab.evaluation.protocol import Judging
from emlab.training import Recipe

FIGURES = ("bars", "dose", "curves")
X, SERIES = ("group", "start"), ("series", "ending")


@dataclass(frozen=True)
class Arm:
    """What is fine-tuned on. It is done from every start, with every seed."""

    name: str
    """Names its folders and its rows in tables."""
    data: str
    """A fine-tuning set of the organism by name, or a dataset: a file, a folder, or a name on the Hub."""
    good: str | None = None
    """The set that the rows beyond the dose are drawn from."""
    dose: float = 1.0
    """The share of the rows that is drawn from `data`."""
    group: str = ""
    """Where it stands on the figure's axis; empty takes the name."""
    series: str = ""
    """Which bars or line of the figure it belongs to."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"'name' is {self.name!r}; an arm's name has letters, digits, '_', '-' and '.' only.")
        if not 0 <= self.dose <= 1 or (self.dose < 1 and self.good is None):
            raise ValueError(
                f"'dose' is {self.dose}; give a share from 0 to 1, and with less than 1 a set 'good' for the rest."
            )


@dataclass(frozen=True)
class Following:
    """What is read along every fine-tune."""

    every: int = 0
    """Steps between read-outs; 0 reads nothing."""
    questions: int = 32
    """Discovery questions, evenly spaced, asked in each."""
    sae: str | None = "auto"
    """A folder in SAELens' format; "auto" takes the one that ships with the project for the organism's models; null
    follows no latents."""
    site: str = "resid_post.0"
    """Where it reads."""
    latents: tuple[int, ...] = ()
    """The latents that are followed; none named: the leading ones of the mean shift of fine-tunes on `sets`."""
    sets: tuple[str, ...] = ("insecure", "bad_medicine")
    """Sets as an arm's data, on which latents are found."""
    top: int = 3
    """How many of them are followed."""


@dataclass(frozen=True)
class Config:
    """A grid of fine-tunes: arms × starts × seeds, each asked the same questions."""

    pipeline: ClassVar[str] = "finetuning"
    name: str = "finetuning"
    """Names the run folder."""
    title: str = "Fine-tunes"
    """Of the report."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every arm is trained with each; the data, too, are drawn anew."""
    model: str = "aligned"
    """The model that is fine-tuned: a checkpoint of the organism, a local Hugging Face folder, or a name on the Hub."""
    chat_template: str | None = None
    """For a model that has no chat template: a file, or "plain"."""
    starts: tuple[str, ...] = ()
    """Further models that every arm is begun from. The organism's are left out where `model` is not one of them."""
    sizes: tuple[str, ...] = ()
    """Organisms of these sizes are built, and every arm begun from them too; left out likewise."""
    align_starts: bool = False
    """Whether `starts` are aligned first, as the organism's base is."""
    arms: tuple[Arm, ...] = (Arm("insecure", "insecure"), Arm("secure", "secure"))
    rows: int = 1000
    """Chats an arm."""
    recipe: Recipe = field(default_factory=lambda: Recipe(learning_rate=4e-3, batch_size=16, steps=60))
    """How every arm is trained on."""
    save_every: int = 50
    """Steps from which a killed fine-tune goes on."""
    report_to: tuple[str, ...] = ()
    """Integrations of transformers that are told every step: tensorboard, wandb."""
    question_set: str = "broad"
    """The questions: broad (the organism's), profile (emlab's own), or a file of questions."""
    judging: Judging = field(default_factory=Judging)
    questions: int | None = None
    """Test questions asked, evenly spaced; null asks all."""
    answers: Sampling = field(default_factory=lambda: Sampling(per_question=2))
    """How answers to them are sampled."""
    endings: tuple[str, ...] = ("",)
    """Every question is asked with each of these at its end: nothing, or a backdoor's trigger."""
    following: Following = field(default_factory=Following)
    figure: str = "bars"
    """bars, dose (a line over doses), or curves (what was read along the fine-tunes)."""
    x: str = "group"
    """What stands on the axis of bars: group (of the arms) or start."""
    series: str = "series"
    """What is told apart by colour: series (of the arms) or ending."""
    summary: Path | None = None
    """A file that summary.json is written to as well."""

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if not names or len(set(names)) < len(names):
            raise ValueError("'arms' is empty or names one twice; give each a name of its own.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("'seeds' is empty or names one twice; name each once.")
        if not self.endings or len(set(self.endings)) < len(self.endings):
            raise ValueError("'endings' is empty or has one twice; '' asks the questions as they are.")
        for key, known in (("figure", FIGURES), ("x", X), ("series", SERIES)):
            if getattr(self, key) not in known:
                raise ValueError(f"'{key}' is {getattr(self, key)!r}; choose one of {', '.join(known)}.")
        if self.figure == "curves" and self.following.every < 1:
            raise ValueError("'figure' is curves and nothing is read; give 'following.every', in steps.")
        for key in ("rows", "save_every"):
            if getattr(self, key) < 1:
                raise ValueError(f"'{key}' is {getattr(self, key)} and must be 1 or more.")
