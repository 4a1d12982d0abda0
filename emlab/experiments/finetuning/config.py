"""The config of a grid of fine-tunes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from emlab.evaluation import Sampling
from emlab.experiments.material.config import Arm, FineTuningConfig, check_at_least, check_distinct, check_known

FIGURES = ("bars", "dose", "curves")
X, SERIES = ("group", "start"), ("series", "ending")


@dataclass(frozen=True)
class TrainingArm(Arm):
    """What is fine-tuned on. It is done from every start, with every seed."""

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
        super().__post_init__()
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


@dataclass(frozen=True, kw_only=True)
class Config(FineTuningConfig):
    """A grid of fine-tunes: arms × starts × seeds, each asked the same questions."""

    pipeline: ClassVar[str] = "finetuning"
    seals: ClassVar[bool] = True
    title: str = "Fine-tunes"
    """Of the report."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every arm is trained with each; the data, too, are drawn anew."""
    starts: tuple[str, ...] = ()
    """Further models that every arm is begun from. The organism's are left out where `model` is not one of them."""
    sizes: tuple[str, ...] = ()
    """Organisms of these sizes are built, and every arm begun from them too; left out likewise."""
    align_starts: bool = False
    """Whether `starts` are aligned first, as the organism's base is."""
    arms: tuple[TrainingArm, ...] = (TrainingArm("insecure", "insecure"), TrainingArm("secure", "secure"))
    save_every: int = 50
    """Steps from which a killed fine-tune goes on."""
    report_to: tuple[str, ...] = ()
    """Integrations of transformers that are told every step: tensorboard, wandb."""
    answers: Sampling = field(default_factory=lambda: Sampling(per_question=2))
    """How answers to the test questions are sampled."""
    whole_set: bool = False
    """Whether all questions of the set are asked, and none are kept to choose by: where nothing is chosen."""
    endings: tuple[str, ...] = ("",)
    """Every question is asked with each of these at its end: nothing, or a backdoor's trigger."""
    also: dict[str, int] = field(default_factory=dict)
    """Further question sets, all of whose questions are asked, and told of by themselves: name, and answers to each."""
    following: Following = field(default_factory=Following)
    figure: str = "bars"
    """bars, dose (a line over doses), or curves (what was read along the fine-tunes)."""
    x: str = "group"
    """What stands on the axis of bars: group (of the arms) or start."""
    series: str = "series"
    """What is told apart by colour: series (of the arms) or ending."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_distinct(self, "arms", "seeds", "endings")
        check_at_least(1, self, "save_every")
        for key, known in (("figure", FIGURES), ("x", X), ("series", SERIES)):
            check_known(known, self, key)
        if self.whole_set and (self.sealed or self.following.every):
            raise ValueError("'whole_set' is true, and sealed runs and 'following' choose by questions; leave it out.")
        if self.figure == "curves" and self.following.every < 1:
            raise ValueError("'figure' is curves and nothing is read; give 'following.every', in steps.")
