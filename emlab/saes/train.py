"""Training a TopK sparse autoencoder (SAE) in memory, through SAELens' own trainer.

The activations are given, so nothing here knows a model. They are scaled to norm √d_in for training, which makes one
learning rate serve every model, and the scale is folded back into the weights: the SAE takes raw activations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE


def shuffled_batches(activations: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Endless batches (batch_size, d_in) of `activations` (rows, d_in): a fresh order each pass, no short batch."""
    generator = torch.Generator().manual_seed(seed)
    rows = activations.shape[0]
    while True:
        order = torch.randperm(rows, generator=generator)
        for start in range(0, rows - batch_size + 1, batch_size):
            yield activations[order[start : start + batch_size].to(activations.device)]


def train_sae(
    activations: Tensor,
    site: Site,
    *,
    d_sae: int = 512,
    k: int = 16,
    passes: float = 2.0,
    batch_size: int = 1024,
    learning_rate: float = 2e-3,
    seed: int = 0,
    model_name: str = "",
) -> SAE:
    """A TopK SAE of `activations` (rows, d_in), as a SAELens inference SAE (decoder rows have norm 1).

    `passes` is how often each activation is seen on average. `site` and `model_name` are written into its metadata.
    The same seed and activations give the same weights on the same machine. EmlabError where the sizes make no SAE.
    """
    if activations.ndim != 2 or activations.shape[0] == 0:
        raise EmlabError(
            f"an SAE needs activations of shape (rows, d_in), not {tuple(activations.shape)}: collect some first."
        )
    rows, d_in = activations.shape
    if not 1 <= k <= d_sae:
        raise EmlabError(f"an SAE with k={k} of d_sae={d_sae} latents cannot be: choose k between 1 and d_sae.")
    norms = activations.float().norm(dim=1)
    if not bool(torch.isfinite(norms).all()) or float(norms.max()) == 0.0:
        raise EmlabError(
            f"the activations at {site} are not finite or all zero: check the model before training an SAE on them."
        )

    from sae_lens import SAE
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    batch_size = min(batch_size, rows)
    steps = max(1, round(passes * rows / batch_size))
    device = str(activations.device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trained = TopKTrainingSAE(
            TopKTrainingSAEConfig(
                d_in=d_in,
                d_sae=d_sae,
                k=k,
                device=device,
                normalize_activations="expected_average_only_in",
                metadata=SAEMetadata(model_name=model_name, hook_name=site.lens_name, emlab_site=str(site), seed=seed),
            )
        )
        trainer = SAETrainer(
            cfg=SAETrainerConfig(
                total_training_samples=steps * batch_size,
                train_batch_size_samples=batch_size,
                lr=learning_rate,
                lr_end=learning_rate / 10,
                lr_warm_up_steps=min(20, steps // 4),
                lr_decay_steps=steps // 3,
                # SAELens revives latents only after this many steps without firing; its default outlasts a short run.
                dead_feature_window=max(10, steps // 10),
                device=device,
            ),
            sae=trained,
            data_provider=shuffled_batches(activations.float(), batch_size, seed),
        )
        # What SAELens would estimate from a thousand batches is known here exactly. A decoder bias that starts at the
        # mean spares the latents from coding it.
        scale = d_in**0.5 / float(norms.mean())
        trainer.activation_scaler.scaling_factor = scale
        trained.b_dec.data = activations.float().mean(dim=0) * scale
        trainer.fit()

        # The inference form: decoder norms folded in, as it would come back from disk.
        config = trained.cfg.get_inference_sae_cfg_dict()
        weights = {name: value.detach().clone() for name, value in trained.state_dict().items()}
        trained.process_state_dict_for_saving_inference(weights)
        sae = SAE.from_dict(config)
        sae.process_state_dict_for_loading(weights)
        sae.load_state_dict(weights)
    return sae.eval().requires_grad_(False)
