"""How well an SAE reconstructs activations. A latent of an SAE that does not reconstruct a model says nothing of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.evaluation import text_loss
from emlab.interventions import Edit, Replace
from emlab.notebook import Shown
from emlab.saes.fitting import check_site
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.data import Messages
    from emlab.models import LanguageModel


@dataclass(frozen=True, repr=False)
class Fidelity(Shown):
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
        explained = f"{self.explained_variance:.3f}"
        if math.isnan(self.explained_variance):
            explained = "could not be measured (all activations are the same)"
        return (
            f"explained variance {explained}, L0 {self.l0:.1f}, "
            f"{self.dead} of {self.d_sae} latents dead, on {self.tokens} tokens"
        )


@torch.no_grad()
def loss_recovered(sae: SAE, model: LanguageModel, site: Site, documents: Sequence[Messages], mean: Tensor) -> float:
    """Share of the loss at stake that the reconstruction keeps: (mean − SAE) / (mean − untouched), 1 is perfect.

    The losses are of the last answers, with every activation of `site` replaced by the mean, by the SAE's
    reconstruction, and by nothing. NaN where replacing by the mean costs nothing.

    Args:
        sae: The SAE.
        model: The model that reads.
        site: Where the SAE reads.
        documents: Chats that end in an answer.
        mean: (d_model,) the mean activation of the site.
    """

    check_site(sae, site)

    def loss(*edits: Edit) -> float:
        return text_loss(model, documents, edits)

    untouched = loss()
    lost = loss(Replace(site, lambda h: mean.to(h).expand_as(h)))
    rebuilt = loss(Replace(site, lambda h: sae.decode(sae.encode(h.to(sae.W_dec)))))
    return (lost - rebuilt) / (lost - untouched) if lost > untouched else float("nan")


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
        active += float((latents != 0).sum())
        fired |= (latents != 0).any(dim=0)
    tokens = activations.shape[0]
    return Fidelity(
        explained_variance=1.0 - error / variance if variance > 0 else float("nan"),
        l0=active / tokens,
        dead=int((~fired).sum()),
        d_sae=sae.cfg.d_sae,
        tokens=tokens,
    )
