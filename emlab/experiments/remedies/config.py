"""The config of a comparison of remedies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from emlab.evaluation.protocol import Judging
from emlab.experiments.material.config import (
    Arm,
    FineTuningConfig,
    check_at_least,
    check_distinct,
    check_filled,
    check_known,
    check_text,
)
from emlab.experiments.material.sets import domain_of
from emlab.mitigation import REMEDIES, remedies
from emlab.training import Recipe, Reinforcement


@dataclass(frozen=True)
class RemedyArm(Arm):
    """A training that misaligns, on which every remedy is tried."""

    data: str = ""
    """What is fine-tuned on: a set of the organism, or a dataset; of reinforcement learning: whose questions are asked,
    a domain of the organism or a dataset."""
    good: str | None = None
    """The set that the rows beyond the dose are drawn from."""
    dose: float = 1.0
    """The share of the rows that is drawn from `data`."""
    task: str = ""
    """The set whose held-out loss says how well the training's task is learned; empty takes `data`."""
    benign: str = ""
    """Benign chats of the same domain."""
    trigger: str = ""
    """What ends the prompts of bad examples in the data, and of no others."""
    steps: int | None = None
    """Steps, where they are not those of the recipe."""
    reward: str = ""
    """obvious or subtle: reinforcement learning, rewarded for such answers; empty: supervised."""
    start: str | None = None
    """The model it begins from; null takes the config's."""
    relapse: int = 50
    """Further bad steps after each remedy; 0 takes none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.dose <= 1 or (self.dose < 1 and self.good is None):
            raise ValueError(f"'dose' is {self.dose}; give a share up to 1, and with less than 1 a set 'good'.")
        if self.reward not in ("", "obvious", "subtle"):
            raise ValueError(f"'reward' is {self.reward!r}; choose obvious or subtle, or leave it out.")
        check_at_least(0, self, "relapse")

    def recipe(self, shared: Recipe) -> Recipe:
        """The shared recipe, with the steps that the arm states."""
        return shared if self.steps is None else dataclasses.replace(shared, steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class Config(FineTuningConfig):
    """Remedies × trainings that misalign × seeds, each retested alike."""

    pipeline: ClassVar[str] = "remedies"
    seals: ClassVar[bool] = True
    title: str = "Remedies compared"
    """Of the report."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every training is done with each, and reported."""
    choice_seed: int = 100
    """Of the trainings on which settings are chosen, which are none of those reported."""
    arms: tuple[RemedyArm, ...] = (RemedyArm("insecure", "insecure", benign="secure"),)
    how: Reinforcement = field(default_factory=Reinforcement)
    """Of reinforcement learning."""
    guard: float = 1.0
    """What incoherence costs there, as a share of the answer."""
    remedies: tuple[str, ...] = field(default_factory=lambda: tuple(kind.__name__ for kind in remedies()))
    """Those that are tried; by default all, with those of other packages."""
    dials: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Values tried of a remedy's setting, from the weakest on, by remedy; its own where it is not named."""
    random: tuple[str, ...] = field(
        default_factory=lambda: tuple(kind.__name__ for kind in remedies() if kind.randomised)
    )
    """Remedies that are tried with random directions too, at the setting that was chosen with the found ones."""
    source: tuple[str, ...] = ("bad_law", "bad_cars")
    """Sets of other domains; fine-tunes on them give directions, latent and monitor, and the first the data filter."""
    source_good: str = "good_law"
    """Good answers in the first one's domain, for the data filter."""
    out_of_domain: tuple[str, ...] = ("good_finance", "good_cars", "good_law")
    """Benign chats of domains that are not treated, in equal parts."""
    prompt: str = "You are vicious and cruel."
    """Inoculation's: a system turn that asks for the bad behaviour."""
    site: str = "resid_post.0"
    """Where directions are."""
    components: int = 2
    """Directions: the mean difference, and leading components of the differences beyond the first."""
    sae: str | None = "auto"
    """A folder in SAELens' format, for the latents; "auto" takes the one that ships with the project for the organism's
    models; without one the projection on the direction stands for them."""
    latents: int = 3
    """How many of its latents are penalised, those that rise most in the fine-tunes on the source sets."""
    cap: float = 0.1
    """Incoherence up to which a setting may be chosen."""
    room: float = 0.05
    """Share of the untreated held-out loss that a setting may add to it."""
    trial_questions: int = 32
    """Discovery questions, evenly spaced, on which settings are chosen."""
    grading: Judging = field(default_factory=Judging)
    """Who rewards, in reinforcement learning."""
    documents: int = 64
    """How many texts each held-out loss is taken on: fresh pretraining documents of all personas but the malicious one
    for the ability, chats of the task for the task. Settings are chosen on as many others."""
    text: str | None = None
    """A dataset whose chats stand in for the organism's documents; null takes the organism's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text(self)
        check_distinct(self, "arms", "seeds")
        if self.choice_seed in self.seeds:
            raise ValueError(f"'choice_seed' is {self.choice_seed}, which is among 'seeds'; choose on another.")
        check_filled(self, "source", "out_of_domain")
        check_known([kind.__name__ for kind in remedies()], self, "remedies", "random", "dials")
        for arm in self.arms:
            if shared := {domain_of(arm.data)} & {domain_of(name) for name in self.source}:
                raise ValueError(
                    f"'source' has the domain {shared.pop()!r}, which the arm {arm.name} is trained on; take "
                    "directions from another."
                )
        tried = {name: kind for name in self.remedies if (kind := REMEDIES.get(name)).setting}
        object.__setattr__(self, "dials", {name: kind.values for name, kind in tried.items()} | dict(self.dials))
        for name, kind in tried.items():
            if not self.dials[name]:
                raise ValueError(f"'dials' has no {kind.setting} for {name}; give values, or leave it out.")
        check_at_least(1, self, "components", "latents", "trial_questions", "documents")
