"""The config of a feature attribution."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from emlab.discovery import METHODS
from emlab.experiments.material.config import ExperimentConfig, check_at_least, check_filled, check_known

START = "start"
"""As a baseline: the model before it was fine-tuned."""


@dataclass(frozen=True)
class Config(ExperimentConfig):
    """A feature attribution."""

    pipeline: ClassVar[str] = "feature_attribution"
    title: str = field(default="Feature attribution", kw_only=True)
    sae: Path
    """A folder in SAELens' format."""
    seed: int = 0
    """Everything random follows from it."""
    model: str = "aligned"
    """A checkpoint of the organism, a local Hugging Face folder, or a name on the Hub."""
    chat_template: str | None = None
    """For a model that has no chat template: a file, or "plain"."""
    narrow: str | None = None
    """A fine-tuning set of the organism, or a dataset, on which the model is fine-tuned first."""
    site: str | None = None
    """Where the SAE reads; by default where it was trained."""
    contrasts: Path | None = None
    """A JSONL file of prompt, misaligned and aligned; by default the organism's own answers."""
    prompts: str | None = None
    """A question set (broad, profile, or a file) in place of contrasts: then a metric must be named."""
    cases: int = 24
    """Contrasts or prompts, evenly spaced over those there are."""
    metric: str | None = None
    """package.module:function or path/to/file.py:function, of the logits (rows, position, vocabulary) of one case and,
    if it takes a second argument, their tokens; by default the log-probability of misaligned minus aligned."""
    methods: tuple[str, ...] = METHODS
    """Some of gradient, integrated, patching."""
    baseline: str = "zero"
    """zero, mean, start (the model before it was fine-tuned), or another model by name or folder."""
    positions: str = "all"
    """On which tokens latents count: all, prompt, header, generated, sentence."""
    steps: int = 3
    """Of integrated: points on the way of each block."""
    blocks: int = 16
    """Of integrated: blocks into which latents are dealt; 1 is the joint way of Marks et al."""
    batch_size: int = 32
    """Rows that go through the model at a time."""
    exact: int | Literal["all"] | None = 40
    """How many of the latents that each method finds strongest are ablated one by one; all; or null for none."""
    random: int = 100
    """Random directions of matched norm, for the noise of an ablation; they are not drawn where nothing is ablated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_filled(self, "methods")
        check_known(METHODS, self, "methods")
        check_at_least(1, self, "cases", "steps", "blocks", "batch_size", "random")
        if self.prompts is not None and (self.metric is None or self.contrasts is not None):
            raise ValueError("'prompts' goes with a 'metric' and without 'contrasts'; mend one of them.")
        if self.baseline == START and self.narrow is None:
            raise ValueError("'baseline' is start, and nothing is fine-tuned; name a set as 'narrow'.")
