"""What a vector in the residual stream does to the logits by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from emlab.errors import EmlabError

if TYPE_CHECKING:
    from emlab.models.language_model import LanguageModel

FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
"""What families call the norm before the unembedding."""

_ROWS = 16_384
"""Rows of the unembedding that are brought to float32 at a time."""


@torch.no_grad()
def direct_logits(lm: LanguageModel, vectors: Tensor) -> Tensor:
    """(n, vocabulary) float32 on the CPU: the direct effect of `vectors` (n, d_model) on the logits of each token.

    The vector goes through the final norm's weight and the unembedding, and the mean over the vocabulary is taken off,
    which probabilities do not see. This is an approximation in two ways: what later blocks make of the vector is left
    out, and so is the norm's division by the stream's size, which scales all tokens alike (nostalgebraist 2020, "the
    logit lens"; Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). EmlabError where the model
    has no final norm that is known, or another width.
    """
    norm, unembedding = _final_norm(lm), lm.model.get_output_embeddings()
    weight = unembedding.weight[: len(lm.tokenizer)]  # some have rows beyond the last token
    if vectors.shape[-1] != weight.shape[1]:
        raise EmlabError(
            f"A vector of width {vectors.shape[-1]} has no direct effect on the logits of {lm.name}, which reads "
            f"{weight.shape[1]} dimensions; give one of its residual stream."
        )
    seen = _through(norm, vectors.to(weight.device).float())
    found = torch.cat([(seen @ part.float().T).cpu() for part in weight.split(_ROWS)], dim=1)
    return found - found.mean(dim=1, keepdim=True)


def _through(norm: nn.Module, vectors: Tensor) -> Tensor:
    """The norm's linear part: what it does besides dividing by the size."""
    weight: Any = norm.weight
    if isinstance(norm, nn.LayerNorm):
        return (vectors - vectors.mean(dim=-1, keepdim=True)) * weight.float()
    # Of a vector whose size is 1 an RMS norm returns its gain, however it stores that (Gemma keeps it less 1).
    return vectors * norm(torch.ones_like(vectors[:1]).to(weight.dtype)).float()


def _final_norm(lm: LanguageModel) -> nn.Module:
    decoder = lm.model.get_decoder() if hasattr(lm.model, "get_decoder") else lm.model.base_model
    for name in FINAL_NORMS:
        if isinstance(found := getattr(decoder, name, None), nn.Module):
            return found
    raise EmlabError(
        f"{lm.name} has no final norm by a name that emlab knows ({', '.join(FINAL_NORMS)}); add its name to "
        "emlab.models.unembedding.FINAL_NORMS."
    )
