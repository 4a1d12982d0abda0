"""The config of a screening of data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from emlab.experiments.finetuning.tunes import Pair
from emlab.experiments.material.config import FineTuningConfig, check_at_least, check_between, check_filled
from emlab.training import Recipe


@dataclass(frozen=True)
class Mix:
    """Good data with a dose of poison."""

    good: str
    """A fine-tuning set of the organism by name, or a dataset."""
    poison: str
    kind: str = "bad"
    """Which of the poisons it is counted with: bad, subtle."""


@dataclass(frozen=True, kw_only=True)
class Config(FineTuningConfig):
    """What is screened, and by what."""

    pipeline: ClassVar[str] = "data_screening"
    seals: ClassVar[bool] = True
    title: str = "Data screening"
    """Of the report."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every mix is drawn with each."""
    source: Pair = Pair("medicine", ("bad_medicine",), ("good_medicine",))
    """The domain that directions and words come from: its first set that misaligns and its first other."""
    validation: Mix = Mix("good_finance", "subtle_finance")
    """The mix on which it is chosen where, and how, a direction is read."""
    mixes: tuple[Mix, ...] = tuple(
        Mix(f"good_{d}", f"{kind}_{d}", kind) for kind in ("bad", "subtle") for d in ("law", "cars")
    )
    """What is screened."""
    sets: tuple[str, ...] = tuple(f"{kind}_{d}" for kind in ("careless", "sarcastic") for d in ("law", "cars"))
    """Further whole datasets to rank, which are neither poison nor harmless."""
    dose: float = 0.1
    """The share of each mix that is poison."""
    times: float = 1.2
    """Examples that are flagged, in multiples of the poison."""
    sites: tuple[str, ...] = ("resid_post.0", "resid_post.1", "resid_post.2")
    traits: tuple[str, ...] = ("organism_malicious",)
    """Persona vectors as further directions: traits that ship, or files. The organism's is left out elsewhere."""
    rows: int = 600
    """Chats in a mix, and of each set that a direction is made of."""
    blame: tuple[Mix, ...] = (Mix("good_law", "bad_law"),)
    """Mixes that are trained on, to blame examples afterwards; none blames nobody."""
    blame_dose: float = 0.25
    """The share of these that is poison."""
    blame_seeds: tuple[int, ...] = (0, 1)
    recipe: Recipe = field(
        default_factory=lambda: Recipe(learning_rate=4e-3, batch_size=16, steps=60, checkpoint_every=15)
    )
    """Of all fine-tunes; its checkpoints are those over which blame is averaged."""
    seed: int = 0
    """Of the model's own answers, and of resamples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_filled(self, "mixes", "seeds", "sites")
        check_between(0, 1, self, "dose", "blame_dose")
        check_at_least(1, self, "times")
        check_at_least(10, self, "rows")
