"""The config of a screening of data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from emlab.evaluation import Sampling
from emlab.evaluation.protocol import Judging
from emlab.experiments.finetuning.tunes import Pair
from emlab.training import Recipe


@dataclass(frozen=True)
class Mix:
    """Good data with a dose of poison."""

    good: str
    """A fine-tuning set of the organism by name, or a dataset."""
    poison: str
    kind: str = "bad"
    """Which of the poisons it is counted with: bad, subtle."""


@dataclass(frozen=True)
class Config:
    """What is screened, and by what."""

    pipeline: ClassVar[str] = "data_screening"
    name: str = "data_screening"
    """Names the run folder."""
    title: str = "Data screening"
    """Of the report."""
    model: str = "aligned"
    """The model that is to be trained: a checkpoint of the organism, a Hugging Face folder, or a name on the Hub."""
    chat_template: str | None = None
    """For a model that has no chat template: a file, or "plain"."""
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
    question_set: str = "broad"
    judging: Judging = field(default_factory=Judging)
    questions: int | None = None
    """Test questions asked, evenly spaced; null asks all."""
    answers: Sampling = field(default_factory=lambda: Sampling(per_question=1))
    seed: int = 0
    """Of the model's own answers, and of bootstraps."""
    summary: Path | None = None
    """A file that summary.json is written to as well."""

    def __post_init__(self) -> None:
        if not self.mixes or not self.seeds or not self.sites:
            raise ValueError("'mixes', 'seeds' or 'sites' is empty; name at least one of each.")
        for name in ("dose", "blame_dose"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"'{name}' is {getattr(self, name)}; give a share between 0 and 1.")
        if self.times < 1 or self.rows < 10:
            raise ValueError(f"'times' is {self.times} and 'rows' {self.rows}; give 1 or more and 10 or more.")
