"""Training a sparse autoencoder (SAE) on activations from memory, a stream or a cache, through SAELens' own trainer.

The activations are scaled to norm √d_in for training, which makes one learning rate serve every model, and the scale is
folded back into the weights: the SAE takes raw activations. A crosscoder's are scaled for each of its two models apart.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.notebook import Shown
from emlab.saes import checkpoints
from emlab.saes.recipe import SaeRecipe, new_trainer, new_training_sae
from emlab.saes.sources import About, Batches, InMemory, Source
from emlab.saes.starting import as_recipe, set_weights, weights_hash
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE


@dataclass(frozen=True, eq=False, repr=False)
class SaeTraining(Shown):
    """A finished training."""

    sae: SAE
    """In its form for inference."""
    about: About
    recipe: SaeRecipe
    counts: dict[str, int]
    """What became of the tokens that were read for it; empty for activations that were in memory."""
    steps: int
    """Steps taken now; fewer than the recipe's where a training was gone on with."""
    seconds: float
    """Time that these took."""

    @property
    def samples_per_second(self) -> float:
        """Activations trained on in a second."""
        return self.steps * self.recipe.batch_size / self.seconds if self.seconds else float("nan")

    def __str__(self) -> str:
        return (
            f"{self.recipe.architecture} with {self.sae.cfg.d_sae:,} latents at {self.about.site} of "
            f"{' and '.join(self.about.models)}: {self.recipe.samples:,} activations, "
            f"{self.samples_per_second:,.0f} a second"
        )


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
    """A TopK SAE of `activations`, as a SAELens inference SAE (decoder rows have norm 1).

    The same seed and activations give the same weights on the same machine. EmlabError where the sizes make no SAE.
    The defaults are those of the organism.

    Args:
        activations: (rows, d_in).
        site: Where they are from, for the SAE's metadata.
        d_sae: Number of latents.
        k: Latents active on a token.
        passes: How often each activation is seen on average.
        batch_size: Activations a step.
        learning_rate: Of Adam.
        seed: Of the weights at the start and of the order.
        model_name: For the SAE's metadata.
    """
    source = InMemory(activations, site, model_name)
    rows = len(activations)
    batch_size = min(batch_size, rows)
    steps = max(1, round(passes * rows / batch_size))
    recipe = SaeRecipe(
        d_sae=d_sae,
        k=k,
        tokens=steps * batch_size,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warm_up=min(20, steps // 4),
        decay=steps // 3,
        # SAELens revives latents only after this many steps without firing; its default outlasts a short run.
        dead_window=max(10, steps // 10),
        seed=seed,
    )
    return fit_sae(source, recipe).sae


def fit_sae(
    source: Source,
    recipe: SaeRecipe,
    *,
    start: SAE | None = None,
    folder: str | Path | None = None,
    checkpoint_every: int = 1000,
    progress: bool | None = None,
) -> SaeTraining:
    """Train an SAE on `source` by `recipe`.

    EmlabError where an SAE to start from does not fit, where the folder holds another training's checkpoint, and where
    the training diverges.

    Args:
        source: Where the activations come from: memory, a cache on disk, or a model that reads.
        recipe: How it is trained.
        start: An SAE to begin from in place of random weights (fine-tuning): it decides on the number of latents and
            on k.
        folder: Keeps a checkpoint, and a training whose checkpoint is there is gone on with; on the CPU its weights are
            then those of a training that was never stopped, bit for bit. Checkpoints are removed at the end.
        checkpoint_every: Steps between checkpoints.
        progress: Whether to show a bar; None shows one where stderr is a terminal.
    """
    if checkpoint_every < 1:
        raise EmlabError(f"checkpoints cannot be {checkpoint_every} steps apart: give 1 or more.")
    about = source.about
    if start is not None:
        recipe = as_recipe(recipe, start, about)
    folder = None if folder is None else artifacts.place(folder)
    identity, saved = "", None
    if folder is not None:
        weights = None if start is None else weights_hash(start)
        identity = artifacts.content_hash([recipe, source.identity, about.plain(), weights])
        saved = checkpoints.latest(folder, identity)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        run = _begin(source, recipe, start, saved)
        del saved  # or a buffer that was read from it would stay in memory twice
        trainer, before = run.trainer, run.trainer.n_training_samples
        bar = tqdm(
            total=recipe.samples,
            initial=before,
            desc=f"SAE at {about.site}",
            unit=" activations",
            disable=None if progress is None else not progress,
        )
        begun = time.perf_counter()
        with bar:
            while trainer.n_training_samples < recipe.samples:
                output = run.step()
                bar.update(recipe.batch_size)
                last = trainer.n_training_samples >= recipe.samples
                if trainer.n_training_steps % 100 == 0 or last:
                    bar.set_postfix_str(f"loss {_loss(output, trainer.n_training_steps):.4g}", refresh=False)
                if folder is not None and not last and trainer.n_training_steps % checkpoint_every == 0:
                    checkpoints.save(folder, identity, trainer, run.batches.state(), {"norms": run.norms})
        seconds = time.perf_counter() - begun
        finished = run.finish()
    if folder is not None:
        checkpoints.remove(folder)
    steps = (recipe.samples - before) // recipe.batch_size
    return SaeTraining(finished, about, recipe, run.batches.counts(), steps, seconds)


@dataclass(frozen=True, eq=False)
class _Run:
    """A training under way."""

    trainer: Any
    """SAELens's."""
    batches: Batches
    recipe: SaeRecipe
    norms: list[float]
    """The mean norm of each model's activations."""
    scales: list[float]
    """What they are multiplied by."""
    columns: Tensor | None
    """(d_in,) the same for each dimension, where there are two models; one factor SAELens applies by itself."""

    def step(self) -> Any:
        """Take a step; what SAELens's trainer returns."""
        self.trainer.maybe_reset_sparsity()
        batch = next(self.batches)
        output = self.trainer.step(batch if self.columns is None else batch * self.columns)
        self.trainer.n_training_steps += 1
        return output

    def finish(self) -> SAE:
        """The SAE for inference."""
        self.trainer.set_final_sae_metadata()
        metadata = self.trainer.sae.cfg.metadata
        metadata.emlab_counts = self.batches.counts()
        if self.columns is not None:
            metadata.emlab_scales = self.scales
        return _for_inference(self.trainer.sae, self.recipe, self.scales[0] if self.columns is None else self.columns)


def _begin(source: Source, recipe: SaeRecipe, start: SAE | None, saved: checkpoints.Checkpoint | None) -> _Run:
    """A training at its first step, or where a checkpoint was saved."""
    about, device = source.about, source.device
    batches = source.batches(recipe.batch_size, recipe.samples, recipe.seed, None if saved is None else saved.batches)
    if saved is None:
        statistics = batches.statistics()
        norms = list(statistics.norms)
    else:
        norms = list(saved.values["norms"])
    scales = [width**0.5 / norm for width, norm in zip(about.widths, norms, strict=True)]
    per_dimension = torch.cat([torch.full((n,), s, device=device) for n, s in zip(about.widths, scales, strict=True)])
    columns = per_dimension if len(scales) > 1 else None
    sae = new_training_sae(recipe, about.d_in, device, _metadata(about, recipe), scaled=columns is None)
    trainer = new_trainer(recipe, sae, batches, device)
    if columns is None:
        # What SAELens would estimate from a thousand batches is known here.
        trainer.activation_scaler.scaling_factor = scales[0]
    if start is not None:
        set_weights(sae, start, per_dimension)
    elif saved is None:
        # A decoder bias that starts at the mean spares the latents from coding it.
        sae.b_dec.data = statistics.mean * (scales[0] if columns is None else columns)
    if saved is not None:
        checkpoints.restore(trainer, saved)
    return _Run(trainer, batches, recipe, norms, scales, columns)


def _loss(output: Any, step: int) -> float:
    loss = float(output.loss.detach())
    if not math.isfinite(loss):
        raise EmlabError(f"the loss is {loss} at step {step}, so the training has diverged: lower the learning rate.")
    return loss


def _metadata(about: About, recipe: SaeRecipe) -> dict[str, Any]:
    return {
        "model_name": about.models[-1],
        "hook_name": about.site.lens_name,
        "seed": recipe.seed,
        "emlab_site": str(about.site),
        "emlab_kind": about.kind,
        "emlab_models": list(about.models),
        "emlab_widths": list(about.widths),
        "emlab_documents": about.documents,
        "emlab_read": about.read,
        "emlab_recipe": artifacts.plain(recipe),
        "emlab_tokens": recipe.samples,
    }


def _for_inference(trained: Any, recipe: SaeRecipe, scale: float | Tensor) -> SAE:
    """The SAE as it would come back from disk: it takes raw activations, and decoder norms are folded in."""
    from sae_lens import SAE

    if isinstance(scale, float):
        trained.fold_activation_norm_scaling_factor(scale)
    config = trained.cfg.get_inference_sae_cfg_dict()
    weights = {name: value.detach().clone() for name, value in trained.state_dict().items()}
    trained.process_state_dict_for_saving_inference(weights)
    sae = SAE.from_dict(config)
    sae.process_state_dict_for_loading(weights)
    sae.load_state_dict(weights)
    if recipe.architecture == "jumprelu":
        sae.fold_W_dec_norm()
    if isinstance(scale, Tensor):
        # Only now, since SAELens' choice of the largest latents goes by the decoder's norm in the scaled space.
        with torch.no_grad():
            sae.W_enc.mul_(scale[:, None])
            sae.W_dec.div_(scale)
            sae.b_dec.div_(scale)
        if hasattr(sae.cfg, "rescale_acts_by_decoder_norm"):
            sae.cfg.rescale_acts_by_decoder_norm = False
    return sae.eval().requires_grad_(False)
