"""Beginning a training from an SAE that exists, for example the base model's on a fine-tuned model's activations."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.saes.recipe import SaeRecipe
from emlab.saes.sources import About

if TYPE_CHECKING:
    from sae_lens import SAE


def as_recipe(recipe: SaeRecipe, start: SAE, about: About) -> SaeRecipe:
    """The recipe with the sizes of `start`; EmlabError where the SAE does not fit the activations or the recipe."""
    cfg = start.cfg
    if cfg.d_in != about.d_in:
        raise EmlabError(
            f"the SAE to start from reads {cfg.d_in} dimensions and the activations have {about.d_in}: "
            "use the SAE of this model."
        )
    hook = cfg.metadata.hook_name
    if hook and hook != about.site.lens_name:
        raise EmlabError(
            f"the SAE to start from reads {hook} and the activations are of {about.site.lens_name}: use the same site."
        )
    if cfg.architecture() != recipe.saved_as:
        raise EmlabError(
            f"the SAE to start from is a {cfg.architecture()}, which {recipe.architecture} does not go on from: choose "
            f"{'topk or fast_topk' if cfg.architecture() == 'topk' else 'jumprelu or batchtopk'}."
        )
    if cfg.normalize_activations != "none" or cfg.reshape_activations != "none":
        raise EmlabError(
            "the SAE to start from normalises or reshapes its activations at run time, which emlab's training does "
            "not: train one anew."
        )
    if recipe.architecture in ("batchtopk", "matryoshka") and float(start.threshold.max() - start.threshold.min()) > 0:
        raise EmlabError(
            f"the SAE to start from has a threshold for each latent, and {recipe.architecture} one for all: choose "
            "jumprelu."
        )
    return replace(recipe, d_sae=cfg.d_sae, k=getattr(cfg, "k", min(recipe.k, cfg.d_sae)))


def weights_hash(sae: SAE) -> str:
    """A hash of the SAE's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(sae.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def set_weights(sae: Any, start: SAE, columns: Tensor) -> None:
    """Give a training SAE, whose activations are scaled by `columns` (d_in,), the weights of `start`."""
    sae.W_enc.copy_(start.W_enc / columns[:, None].to(start.W_enc))
    rows = getattr(start, "rows", start.W_dec)  # those by which a scaled TopK chose its latents
    sae.W_dec.copy_(rows * columns.to(rows))
    sae.b_dec.copy_(start.b_dec * columns.to(start.b_dec))
    sae.b_enc.copy_(start.b_enc)
    sae.cfg.apply_b_dec_to_input = start.cfg.apply_b_dec_to_input
    norms = sae.W_dec.norm(dim=1)
    if start.cfg.architecture() == "topk":
        # SAELens can choose the largest latents by their part in the output or by their bare value. Where decoder rows
        # are of one norm, as SAELens and emlab save them, both are the same, and the first trains better.
        uniform = float(norms.max()) <= 1.05 * float(norms.min())
        sae.cfg.rescale_acts_by_decoder_norm = bool(start.cfg.rescale_acts_by_decoder_norm or uniform)
    elif hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(float(start.threshold.mean()) * float(norms.mean()))
    else:
        sae.threshold.copy_(start.threshold)
