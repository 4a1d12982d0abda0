"""Some of an SAE's latents on many tokens, without ever holding all of its latents on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sae_lens import SAE

AT_ONCE = 2**25
"""Latent activations held at a time: 128 MiB in float32. With 131,072 latents these are 256 tokens."""


def chunks(sae: SAE, tokens: int) -> list[slice]:
    """Stretches of `tokens` tokens, each of which `sae` may encode at once."""
    size = max(1, AT_ONCE // len(sae.W_dec))
    return [slice(at, at + size) for at in range(0, tokens, size)]


@torch.no_grad()
def latent_values(sae: SAE, values: Tensor, latents: Sequence[int]) -> Tensor:
    """(tokens, len(latents)) float32 on the CPU: what these latents are on activations `values` (tokens, d_in)."""
    found = torch.empty(len(values), len(latents))
    for part in chunks(sae, len(values)):
        found[part] = sae.encode(values[part].to(sae.W_dec))[:, list(latents)].float().cpu()
    return found
