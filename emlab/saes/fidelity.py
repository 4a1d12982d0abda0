"""How well an SAE reconstructs activations. A latent of an SAE that does not reconstruct a model says nothing of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.errors import EmlabError

if TYPE_CHECKING:
    from sae_lens import SAE


@dataclass(frozen=True)
class Fidelity:
    """An SAE's reconstruction of one set of activations."""

    explained_variance: float
    """1 − Σ‖x − x̂‖² / Σ‖x − mean(x)‖²: 1 is perfect, 0 is no better than the mean, negative is worse."""
    l0: float
    """Mean number of latents active on a token."""
    dead: int
    """Latents that are active on none of these tokens."""
    d_sae: int
    tokens: int

    def __str__(self) -> str:
        return (
            f"explained variance {self.explained_variance:.3f}, L0 {self.l0:.1f}, "
            f"{self.dead} of {self.d_sae} latents dead, on {self.tokens} tokens"
        )


@torch.no_grad()
def fidelity(sae: SAE, activations: Tensor, batch_size: int = 8192) -> Fidelity:
    """`Fidelity` of `sae` on `activations` (tokens, d_in). EmlabError for fewer than two tokens or another width."""
    if activations.ndim != 2 or activations.shape[0] < 2:
        raise EmlabError(
            f"fidelity needs at least two activations, not shape {tuple(activations.shape)}: collect more."
        )
    if activations.shape[1] != sae.cfg.d_in:
        raise EmlabError(
            f"the SAE reads {sae.cfg.d_in} dimensions and the activations have {activations.shape[1]}: "
            "use the SAE of this model."
        )
    mean = activations.double().mean(dim=0)
    error = variance = active = 0.0
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.bool, device=activations.device)
    for x in activations.split(batch_size):
        latents = sae.encode(x.to(sae.W_dec.dtype))
        error += float((x.double() - sae.decode(latents).double()).square().sum())
        variance += float((x.double() - mean).square().sum())
        active += float((latents > 0).sum())
        fired |= (latents > 0).any(dim=0)
    tokens = activations.shape[0]
    return Fidelity(
        explained_variance=1.0 - error / variance if variance > 0 else float("nan"),
        l0=active / tokens,
        dead=int((~fired).sum()),
        d_sae=sae.cfg.d_sae,
        tokens=tokens,
    )
