"""How an SAE is trained, and the SAE of SAELens that a recipe asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from emlab.errors import EmlabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

ARCHITECTURES = ("topk", "fast_topk", "batchtopk", "jumprelu", "matryoshka")
"""`fast_topk` is emlab's faster `topk` with the same result, saved as `topk`; SAELens calls `matryoshka`
matryoshka_batchtopk, and saves it and `batchtopk` as jumprelu with a threshold."""


@dataclass(frozen=True)
class SaeRecipe:
    """How an SAE is trained. Activations are scaled to norm √d_in for it, so that one recipe serves every model."""

    architecture: str = "topk"
    """One of ARCHITECTURES."""
    d_sae: int = 4096
    """Latents."""
    k: float = 32
    """Latents active on a token; of batchtopk and matryoshka on average. jumprelu does not have it."""
    widths: tuple[int, ...] = ()
    """Of matryoshka: how many latents each nested SAE has, rising to d_sae; empty: 1/8, 1/4, 1/2 and all of them."""
    l0_coefficient: float = 1.0
    """Of jumprelu: what an active latent costs, in units of squared error (a token's whole is about d_in)."""
    l0_warm_up: int | None = None
    """Of jumprelu: steps in which that cost rises from 0; None: a fifth of all."""
    auxiliary: float = 1.0
    """Weight of the loss that revives dead latents (Gao et al. 2024); jumprelu has none."""
    tokens: int = 1_000_000
    """Activations to train on, rounded down to whole batches."""
    batch_size: int = 1024
    """Activations in a step."""
    learning_rate: float = 2e-3
    """Adam's, at its height."""
    warm_up: int | None = None
    """Steps in which the learning rate rises from 0; None: a twentieth of all, at most 1,000."""
    decay: int | None = None
    """Last steps, in which it falls to 0; None: a fifth of all."""
    dead_window: int | None = None
    """A latent is dead that has not been active for more than so many steps; None: a tenth of all, at most 1,000."""
    seed: int = 0
    """Of the weights and of the order."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if self.architecture not in ARCHITECTURES:
            raise EmlabError(
                f"there is no SAE architecture {self.architecture!r}: choose among {', '.join(ARCHITECTURES)}."
            )
        if not 1 <= self.k <= self.d_sae:
            raise EmlabError(
                f"an SAE with k={self.k} of d_sae={self.d_sae} latents cannot be: choose k between 1 and d_sae."
            )
        if self.architecture in ("topk", "fast_topk") and self.k != int(self.k):
            raise EmlabError(f"k={self.k} is no whole number of latents: only batchtopk and matryoshka take a mean.")
        nested = [*self.widths, self.d_sae]
        if any(width < 1 for width in nested) or any(a > b for a, b in zip(nested, nested[1:], strict=False)):
            raise EmlabError(f"the nested widths {self.widths} must rise and end at d_sae={self.d_sae}: mend them.")
        if self.batch_size < 1 or self.tokens < self.batch_size:
            raise EmlabError(
                f"{self.tokens} activations make no batch of {self.batch_size}: train on more, or in smaller batches."
            )
        if not self.learning_rate > 0:
            raise EmlabError(f"nothing is learned at a learning rate of {self.learning_rate}: choose one above 0.")

    @property
    def steps(self) -> int:
        """How many steps it takes."""
        return self.tokens // self.batch_size

    @property
    def samples(self) -> int:
        """How many activations they see."""
        return self.steps * self.batch_size

    @property
    def saved_as(self) -> str:
        """The architecture of the saved SAE."""
        return "topk" if self.architecture in ("topk", "fast_topk") else "jumprelu"


def new_training_sae(recipe: SaeRecipe, d_in: int, device: torch.device, metadata: dict[str, Any], scaled: bool) -> Any:
    """SAELens's training SAE with random weights from torch's generator.

    `scaled` says that SAELens scales the activations; else they come scaled.
    """
    from sae_lens.saes.sae import SAEMetadata

    kind: dict[str, Any] = {
        "d_in": d_in,
        "d_sae": recipe.d_sae,
        "device": str(device),
        "normalize_activations": "expected_average_only_in" if scaled else "none",
        "metadata": SAEMetadata(**metadata),
    }
    if recipe.architecture == "jumprelu":
        from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig

        warm_up = recipe.steps // 5 if recipe.l0_warm_up is None else recipe.l0_warm_up
        config = JumpReLUTrainingSAEConfig(l0_coefficient=recipe.l0_coefficient, l0_warm_up_steps=warm_up, **kind)
        return JumpReLUTrainingSAE(config)
    kind["aux_loss_coefficient"] = recipe.auxiliary
    if recipe.architecture == "batchtopk":
        from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=recipe.k, **kind))
    if recipe.architecture == "matryoshka":
        from sae_lens.saes.matryoshka_batchtopk_sae import (
            MatryoshkaBatchTopKTrainingSAE,
            MatryoshkaBatchTopKTrainingSAEConfig,
        )

        nested = [width for width in recipe.widths if width < recipe.d_sae]
        nested = nested or [recipe.d_sae // part for part in (8, 4, 2) if recipe.d_sae >= part]
        kind["matryoshka_widths"] = [*dict.fromkeys(nested), recipe.d_sae]
        return MatryoshkaBatchTopKTrainingSAE(MatryoshkaBatchTopKTrainingSAEConfig(k=recipe.k, **kind))
    kind["k"] = int(recipe.k)
    if recipe.architecture == "fast_topk":
        fast = _fast_topk()
        return fast.FastTopKTrainingSAE(fast.FastTopKTrainingSAEConfig(**kind))
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    return TopKTrainingSAE(TopKTrainingSAEConfig(**kind))


def new_trainer(recipe: SaeRecipe, sae: Any, batches: Iterator[Tensor], device: torch.device) -> Any:
    """SAELens's trainer of `sae` on `batches`."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    steps = recipe.steps
    config = SAETrainerConfig(
        total_training_samples=recipe.samples,
        train_batch_size_samples=recipe.batch_size,
        lr=recipe.learning_rate,
        lr_end=recipe.learning_rate / 10,  # of no effect: the rate is constant, and falls to 0 in the last steps
        lr_warm_up_steps=min(1000, steps // 20) if recipe.warm_up is None else recipe.warm_up,
        lr_decay_steps=steps // 5 if recipe.decay is None else recipe.decay,
        dead_feature_window=max(10, min(1000, steps // 10)) if recipe.dead_window is None else recipe.dead_window,
        device=str(device),
    )
    if recipe.architecture == "fast_topk":
        return _fast_topk().fast_trainer(sae, config, batches)
    return SAETrainer(cfg=config, sae=sae, data_provider=batches)


def _fast_topk() -> Any:
    from emlab.saes import fast_topk  # imports SAELens

    fast_topk.register()
    return fast_topk
