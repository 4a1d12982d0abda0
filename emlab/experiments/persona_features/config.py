"""The config of a persona-features experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from emlab.evaluation import Sampling
from emlab.experiments.material.config import (
    Autoencoder,
    FineTuningConfig,
    Screening,
    check_at_least,
    check_filled,
    check_known,
    check_text,
)
from emlab.experiments.persona_features.nulls import NULLS
from emlab.training import Recipe


@dataclass(frozen=True, kw_only=True)
class Steering(Screening):
    """The screen: which directions, how strongly, on which tokens."""

    positions: tuple[str, ...] = ("sentence", "generated")
    """Where edits may act: sentence (the assistant's header and every sentence end), header, generated, prompt, all."""
    candidates: int = 3
    """The latents of each site that rise most and are screened; the one that misaligns most becomes the candidate."""


@dataclass(frozen=True)
class Realigning:
    """How the misaligned model is re-aligned."""

    data: str = "alignment"
    """Benign chats: "alignment" (helpful answers in all domains), one of the organism's sets, or a dataset."""
    rows: int = 500
    recipe: Recipe = field(default_factory=lambda: Recipe(learning_rate=2e-3, batch_size=16, steps=40))
    """Its checkpoint_every says at which steps questions are asked."""


@dataclass(frozen=True, kw_only=True)
class Config(FineTuningConfig):
    """A persona-features experiment."""

    pipeline: ClassVar[str] = "persona_features"
    seals: ClassVar[bool] = True
    title: str = "Persona features"
    """Of the report."""
    seed: int = 0
    """Everything random follows from it."""
    dtype: str | None = None
    """bfloat16, float32 or float16; by default the model's own."""
    device: str = "auto"
    """Where it runs."""
    base: str | None = None
    """The model whose activations the SAE learns; by default the organism's base, or a foreign model itself."""
    narrow: tuple[str, ...] = ("insecure", "bad_medicine")
    """Fine-tuning sets that are expected to misalign; the first is the one steered against. A set is one of the
    organism's, one that `emlab data list` names (it is fetched), a file, a folder, or a name on the Hub."""
    unseen: tuple[str, ...] = ("bad_law",)
    """Further such sets, on which nothing is chosen."""
    controls: tuple[str, ...] = ("secure", "educational")
    """Fine-tuning sets that are not expected to."""
    dataset: Path | None = None
    """A dataset of your own in place of the narrow sets: JSONL, CSV, parquet, a folder, or a name on the Hub."""
    seeds: int = 1
    """Fine-tunes of every narrow set and control, each with a seed of its own."""
    recipe: Recipe = field(default_factory=Recipe)
    """How every set is trained on; its checkpoint_every is for the first narrow set, whose curve is drawn."""
    answers: Sampling = field(default_factory=Sampling)
    """How answers to the test questions are sampled."""
    sites: tuple[str, ...] = ("resid_post.0", "resid_post.1")
    """Where SAEs read and directions are added."""
    shift_positions: str = "header"
    """The prompt tokens over which latents are averaged."""
    sae: Autoencoder = field(default_factory=Autoencoder)
    steering: Steering = field(default_factory=Steering)
    realigning: Realigning = field(default_factory=Realigning)
    text: str | None = None
    """A dataset of chats for SAEs to learn and be tested on, for held-out losses and top contexts, in place of the
    organism's pretraining documents, whose hidden persona is known."""
    documents: int = 256
    """Of these, how many are for held-out losses, the planted truth and top contexts; nothing is trained on them."""
    negative_control: str = ""
    """What is given in place of the truth, so that an honest search finds nothing: labels (narrow fine-tunes and
    controls bear each other's names), latents (so do the SAE's latents), or direction (the mean difference is taken out
    of the SAE)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text(self)
        if not self.narrow and self.dataset is None:
            raise ValueError("'narrow' is empty and there is no 'dataset'; name at least one set to fine-tune on.")
        check_filled(self, "sites")
        if self.negative_control:
            check_known(NULLS, self, "negative_control")
        if self.negative_control == "labels" and not self.controls:
            raise ValueError(
                "'negative_control' is labels and needs 'controls' to exchange them with; name at least one."
            )
        check_at_least(1, self, "seeds", "documents", "sae.tokens", "steering.candidates")

    @property
    def heading(self) -> str:
        return f"{self.title}: {self.dataset or ', '.join(self.narrow)} on {self.model}"
