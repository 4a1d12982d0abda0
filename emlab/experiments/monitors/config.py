"""The config of a comparison of monitors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emlab.experiments.finetuning.tunes import Pair
from emlab.experiments.material.config import FineTuningConfig, check_at_least, check_filled, check_known


@dataclass(frozen=True, kw_only=True)
class Config(FineTuningConfig):
    """Fine-tunes to fit monitors on, and others to test them on."""

    pipeline: ClassVar[str] = "monitors"
    seals: ClassVar[bool] = True
    title: str = "Monitors"
    """Of the report."""
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
    questions: int | None = None
    """Test questions, and discovery questions, at most, evenly spaced; null asks all."""
    seed: int = 0
    """Of what is random but the fine-tunes: answers, bootstraps, fits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({pair.domain for pair in self.fit}) < 2 or not self.test:
            raise ValueError("'fit' needs two domains, so that one can be left out, and 'test' one; name more.")
        if both := {pair.domain for pair in self.fit} & {pair.domain for pair in self.test}:
            raise ValueError(f"'test' has {both.pop()!r}, which is fitted on; test on domains of their own.")
        check_filled(self, "sites", "fit_seeds", "test_seeds")
        check_at_least(1, self, "several")
        check_known(("platt", "isotonic"), self, "calibration")
