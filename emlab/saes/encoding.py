"""An SAE's latents on many tokens, without ever holding all of its latents on all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.saes.units import lengths_left, own_activations

if TYPE_CHECKING:
    from sae_lens import SAE

BUDGET = 2**27
"""Bytes that the latents of a stretch of tokens may take in float32: 256 tokens of 131,072 latents."""


def chunks(sae: SAE, tokens: int, budget: int = BUDGET) -> list[slice]:
    """Stretches of `tokens` tokens, each of which `sae` may encode at once."""
    size = max(1, budget // (4 * sae.cfg.d_sae))
    return [slice(at, at + size) for at in range(0, tokens, size)]


def dense_chunks(sae: SAE, values: Tensor, budget: int = BUDGET) -> Iterator[tuple[slice, Tensor]]:
    """Latents (chunk, d_sae) of activations (n, d_in), float32 on the SAE's device, and which rows they are of.

    In units of the activations: see `emlab.saes.units`.
    """
    lengths = lengths_left(sae)
    for part in chunks(sae, len(values), budget):
        with torch.no_grad():
            dense = own_activations(sae, values[part])
            if lengths is not None:
                dense = dense * lengths
        yield part, dense


def latent_values(sae: SAE, values: Tensor, latents: Sequence[int]) -> Tensor:
    """(tokens, len(latents)) float32 on the CPU: what these latents are on activations `values` (tokens, d_in)."""
    found = torch.empty(len(values), len(latents))
    for part, dense in dense_chunks(sae, values):
        found[part] = dense[:, list(latents)].cpu()
    return found
