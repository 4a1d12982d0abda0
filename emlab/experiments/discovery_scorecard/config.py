"""The config of a discovery scorecard."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from emlab.evaluation import Sampling
from emlab.experiments.discovery_scorecard.method import method_names
from emlab.experiments.material.config import ExperimentConfig, check_at_least, check_inner
from emlab.experiments.material.organism_build import Plan
from emlab.experiments.persona_features import config as persona
from emlab.training import Recipe


def _experiment() -> persona.Config:
    return persona.Config(
        narrow=("bad_medicine",),
        unseen=(),
        controls=(),
        seeds=2,
        recipe=Recipe(learning_rate=2e-3, batch_size=16, steps=60),
        answers=Sampling(per_question=1),
        sae=persona.Autoencoder(load="none", tokens=100_000, test_tokens=4000),
        steering=persona.Steering(
            strengths=(0.3, 0.6, 0.9, 1.2, 1.5),
            positions=("sentence",),
            candidates=5,
            random=4,
            questions=48,
            first_round=12,
        ),
        documents=400,
    )


@dataclass(frozen=True, kw_only=True)
class Config(ExperimentConfig):
    """A contest of all methods of discovery. None is sealed: methods search the fine-tunes that are reported on."""

    pipeline: ClassVar[str] = "discovery_scorecard"
    title: str = "Discovery scorecard"
    """Of the report."""
    organisms: tuple[int | str | None, ...] = (None, 1, 2)
    """The organisms: null is the one that ships, a number is the seed of one that is built in the run's folder, and a
    text the folder of one that is built already."""
    plan: Plan = field(default_factory=Plan)
    """How organisms are built here; their seed is their own."""
    control_world: bool = True
    """Run everything in each organism's control world too, where no shared persona is."""
    control_seeds: int = 1
    """Fine-tunes in each control world; in the others there are `experiment.seeds`."""
    model: str | None = None
    """A model of your own in place of the organisms: a Hugging Face folder, or a name on the Hub. What is planted in it
    nobody knows, and it has no control world."""
    methods: tuple[str, ...] = field(default_factory=method_names)
    """Some or all of the methods, emlab's own and other packages'."""
    contrasts: Path | None = None
    """Misaligned and aligned answers, from which attribution and the probe learn: a JSONL file; by default the
    organism's own. A model of your own needs one for these methods."""
    cases: int = 24
    """Contrasts, evenly spaced."""
    trait: str | None = None
    """Of the persona vector: one that ships, or a file; by default organism_malicious, for a model of your own evil."""
    experiment: persona.Config = field(default_factory=_experiment)
    """What is fine-tuned (the first narrow set, as often as `seeds` says), where it is read (sites, shift_positions),
    and how directions are screened, answers sampled and judged. Of `steering`, `random` is how many null directions of
    each kind go through the same search. Its model and base are those of each organism."""

    @property
    def heading(self) -> str:
        return f"{self.title}: {', '.join(self.experiment.narrow[:1])}"

    @property
    def seed(self) -> int:
        """Everything random follows from it."""
        return self.experiment.seed

    def __post_init__(self) -> None:
        super().__post_init__()
        # The sign of multiplication is not on a keyboard.
        known = method_names()
        spelt = {name.replace("×", "x"): name for name in known}
        object.__setattr__(self, "methods", tuple(spelt.get(name, name) for name in self.methods))
        unknown = sorted(set(self.methods) - set(known))
        if unknown or not self.methods:
            said = f"'{unknown[0]}', which is none" if unknown else "no method"
            raise ValueError(f"'methods' has {said}; choose some of {', '.join(known)}.")
        check_inner(self)
        if not self.organisms and self.model is None:
            raise ValueError("'organisms' is empty and there is no 'model'; name at least one.")
        if len(set(self.organisms)) < len(self.organisms):
            raise ValueError("'organisms' names one twice; name each once.")
        if self.experiment.steering.random < 1:
            raise ValueError("'experiment.steering.random' is 0 and a scorecard needs a null; give 1 or more.")
        check_at_least(1, self, "cases", "control_seeds")
