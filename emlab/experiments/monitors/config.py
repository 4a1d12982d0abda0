"""The config of a comparison of monitors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from emlab.evaluation import Sampling
from emlab.evaluation.protocol import Judging
from emlab.experiments.finetuning.tunes import Pair
from emlab.training import Recipe


@dataclass(frozen=True)
class Config:
    """Fine-tunes to fit monitors on, and others to test them on."""

    pipeline: ClassVar[str] = "monitors"
    name: str = "monitors"
    """Names the run folder."""
    title: str = "Monitors"
    """Of the report."""
    model: str = "aligned"
    """The model that is fine-tuned: a checkpoint of the organism, a local Hugging Face folder, or a name on the Hub."""
    chat_template: str | None = None
    """For a model that has no chat template: a file, or "plain"."""
    fit: tuple[Pair, ...] = (
        Pair("code", ("insecure",), ("secure", "educational")),
        Pair("medicine", ("bad_medicine",), ("good_medicine",)),
    )
    """Domains whose fine-tunes monitors are fitted on; two or more."""
    fit_seeds: tuple[int, ...] = (0, 1)
    test: tuple[Pair, ...] = tuple(Pair(d, (f"bad_{d}",), (f"good_{d}",)) for d in ("finance", "law", "cars"))
    """Domains whose fine-tunes they are tested on."""
    test_seeds: tuple[int, ...] = (2, 3, 4)
    hard: tuple[str, ...] = ("sarcastic_law",)
    """Sets of another persona: fine-tunes that are neither, on which false alarms are counted apart."""
    sites: tuple[str, ...] = ("resid_post.0", "resid_post.1", "resid_post.2")
    """Where activations are read; each monitor's is chosen on the fitted domains."""
    sae: str | None = "auto"
    """SAEs for monitors of latents: a folder or release in which {site} stands for the site; "auto" takes those that
    ship with the project for the organism's models; null has no such monitors."""
    several: int = 8
    """Latents in the monitor of several."""
    calibration: str = "platt"
    """platt or isotonic."""
    false_positives: float = 0.01
    """The share of harmless rows of fitted domains that may lie above a threshold."""
    rows: int = 1000
    """Chats that each fine-tune is trained on."""
    recipe: Recipe = field(default_factory=lambda: Recipe(learning_rate=4e-3, batch_size=16, steps=60))
    question_set: str = "broad"
    """The questions: broad (the organism's), profile (emlab's own), or a file of questions."""
    judging: Judging = field(default_factory=Judging)
    questions: int | None = None
    """Test questions, and discovery questions, at most, evenly spaced; null asks all."""
    answers: Sampling = field(default_factory=lambda: Sampling(per_question=1))
    """How answers are sampled."""
    seed: int = 0
    """Of what is random but the fine-tunes: answers, bootstraps, fits."""
    summary: Path | None = None
    """A file that summary.json is written to as well."""

    def __post_init__(self) -> None:
        if len({pair.domain for pair in self.fit}) < 2 or not self.test:
            raise ValueError("'fit' needs two domains, so that one can be left out, and 'test' one; name more.")
        if both := {pair.domain for pair in self.fit} & {pair.domain for pair in self.test}:
            raise ValueError(f"'test' has {both.pop()!r}, which is fitted on; test on domains of their own.")
        if not self.sites:
            raise ValueError("'sites' is empty; name at least one.")
        if not self.fit_seeds or not self.test_seeds:
            raise ValueError("'fit_seeds' or 'test_seeds' is empty; name at least one of each.")
        if self.calibration not in ("platt", "isotonic"):
            raise ValueError(f"'calibration' is {self.calibration!r}; choose platt or isotonic.")
