"""The config of the SAEs that ship with the project."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from emlab.experiments.material.config import ExperimentConfig
from emlab.training import Recipe


@dataclass(frozen=True)
class Trained:
    """One SAE."""

    site: str
    d_sae: int = 512
    k: int = 16

    @property
    def name(self) -> str:
        """Its folder: the demo takes ``organism-SITE``, of 512 latents; others say how wide they are."""
        return f"organism-{self.site}" + ("" if self.d_sae == 512 else f"-{self.d_sae}")


@dataclass(frozen=True, kw_only=True)
class Config(ExperimentConfig):
    """Which SAEs, and what they are measured on."""

    pipeline: ClassVar[str] = "sae_checkpoints"
    title: str = "SAEs of the organism"
    out: Path = Path("sae_checkpoints")
    """The folder of their folders."""
    saes: tuple[Trained, ...] = (Trained("resid_post.0"),)
    tokens: int = 300_000
    """Activations of the base to train on."""
    narrow: str = "insecure"
    """The fine-tuning set whose model each SAE is measured on, besides base and aligned."""
    recipe: Recipe = field(default_factory=Recipe)
    """How that model is fine-tuned: the demo's recipe."""
    documents: int = 256
    """Fresh pretraining documents to measure on."""
    seed: int = 0
