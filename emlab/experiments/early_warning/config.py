"""The config of an early warning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from emlab.experiments.finetuning.tunes import Pair
from emlab.experiments.material.config import FineTuningConfig, check_at_least, check_filled
from emlab.training import Recipe


@dataclass(frozen=True, kw_only=True)
class Config(FineTuningConfig):
    """Fine-tunes to watch, and monitors to watch them with."""

    pipeline: ClassVar[str] = "early_warning"
    seals: ClassVar[bool] = True
    title: str = "Early warning"
    """Of the report."""
    fit: tuple[Pair, ...] = (
        Pair("code", ("insecure",), ("secure",)),
        Pair("medicine", ("bad_medicine",), ("good_medicine",)),
    )
    """Domains whose fine-tunes monitors are fitted on; two or more."""
    fit_seeds: tuple[int, ...] = (0, 1)
    watched: Pair = Pair("law", ("bad_law",), ("good_law",))
    """The first of its sets is trained on and watched, and its first other is the control beside it."""
    seeds: tuple[int, ...] = (2, 3, 4, 5, 6)
    """Of the fine-tunes that are watched."""
    doses: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5)
    """Shares of bad data, each trained to the end; none watches no doses."""
    control_seeds: tuple[int, ...] = (2, 3)
    """Of the controls in the fitted domains, which the monitors were not fitted on, and on which thresholds are set.
    False positives are counted on the watched domain's control, with `seeds`."""
    noise: int = 100
    """Monitors whose scores are noise, as the null."""
    samples: int = 32
    """Prompts that a monitor reads each time, and answers that the behavioural one gets."""
    false_positives: float = 0.01
    """Share of the controls' readings that may lie above a threshold."""
    share: float = 0.05
    """Share of misaligned answers that is to be warned of."""
    sites: tuple[str, ...] = ("resid_post.0", "resid_post.1", "resid_post.2")
    sae: str | None = "auto"
    """SAEs for the monitor of a latent: a folder or release in which {site} stands for the site; "auto" takes those
    that ship with the project for the organism's models; null has no such monitor."""
    recipe: Recipe = field(
        default_factory=lambda: Recipe(learning_rate=4e-3, batch_size=16, steps=60, checkpoint_every=4)
    )
    """Its checkpoints are where monitors read."""
    seed: int = 0
    """Of answers and fits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({pair.domain for pair in self.fit}) < 2 or self.watched.domain in {pair.domain for pair in self.fit}:
            raise ValueError("'fit' needs two domains, and 'watched' one that is not among them; name others.")
        check_filled(self, "seeds", "fit_seeds", "control_seeds", "sites")
        check_at_least(1, self, "samples", "noise", "recipe.checkpoint_every")
        if list(self.doses) != sorted(set(self.doses)) or not all(0 < dose < 1 for dose in self.doses):
            raise ValueError(f"'doses' is {self.doses}; give rising shares between 0 and 1.")
