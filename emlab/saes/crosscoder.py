"""What a crosscoder tells of two models: which latents both have, and which only one.

A crosscoder reads both models' activations at the same token and writes both (Lindsey et al. 2024). With TopK or
BatchTopK it is an SAE of the two side by side (Minder et al. 2025, arXiv:2504.02922), each model's activations scaled
to its own norm. A latent has a decoder for each model; where one is much shorter, it is the other model's alone.

BatchTopK crosscoders need not shrink a decoder that one model could do with as well, but a latent that looks like one
model's alone may still be shared: *latent scaling* tests it, by fitting how much of a latent each model's activations
hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.notebook import Shown

if TYPE_CHECKING:
    from sae_lens import SAE

SPECIFIC, SHARED = 0.1, (0.4, 0.6)
"""Relative norms up to this, and from one minus this, are of one model alone; those in between these, of both."""


@dataclass(frozen=True, eq=False, repr=False)
class Crosscoder(Shown):
    """The decoders of a crosscoder, in the space in which it was trained (each model scaled to norm √d)."""

    before: Tensor
    """(d_sae, d) decoder of the model before."""
    after: Tensor
    """(d_sae, d) decoder of the model after."""
    models: tuple[str, str]

    @classmethod
    def of(cls, sae: SAE) -> Crosscoder:
        """That of an SAE that was trained as a crosscoder; EmlabError for another."""
        metadata = sae.cfg.metadata
        if metadata.emlab_kind != "crosscoder":
            raise EmlabError("the SAE is no crosscoder: train one on the activations of two models.")
        parts = sae.W_dec.detach().split(list(metadata.emlab_widths), dim=1)
        before, after = (part * scale for part, scale in zip(parts, metadata.emlab_scales, strict=True))
        return cls(before, after, tuple(metadata.emlab_models))

    @property
    def norms(self) -> Tensor:
        """(d_sae, 2) norm of each latent's decoders."""
        return torch.stack([self.before.norm(dim=1), self.after.norm(dim=1)], dim=1)

    @property
    def relative_norm(self) -> Tensor:
        """(d_sae,) from 0, the model before alone, to 1, the model after alone; 0.5 where both decoders are as long.

        ½ · ((‖after‖ − ‖before‖) / max(‖after‖, ‖before‖) + 1), as Minder et al. have it; NaN where both are zero.
        """
        before, after = self.norms.unbind(dim=1)
        return ((after - before) / torch.maximum(after, before) + 1) / 2

    @property
    def cosine(self) -> Tensor:
        """(d_sae,) cosine between the two decoders of each latent; NaN where the models' widths differ."""
        if self.before.shape != self.after.shape:
            return torch.full((len(self.before),), float("nan"))
        return torch.nn.functional.cosine_similarity(self.before, self.after, dim=1)

    @property
    def before_only(self) -> Tensor:
        """(n,) int64: latents of the model before alone."""
        return (self.relative_norm <= SPECIFIC).nonzero()[:, 0]

    @property
    def after_only(self) -> Tensor:
        """(n,) int64: latents of the model after alone."""
        return (self.relative_norm >= 1 - SPECIFIC).nonzero()[:, 0]

    @property
    def shared(self) -> Tensor:
        """(n,) int64: latents whose decoders are about as long in both."""
        low, high = SHARED
        relative = self.relative_norm
        return ((relative >= low) & (relative <= high)).nonzero()[:, 0]

    def __str__(self) -> str:
        relative, cosine = self.relative_norm, self.cosine[self.shared]
        return (
            f"{len(self.shared)} of {len(relative)} latents are of both models (median cosine of their decoders "
            f"{float(cosine.median()) if len(cosine) else float('nan'):.2f}), {len(self.before_only)} of "
            f"{self.models[0]} alone, {len(self.after_only)} of {self.models[1]} alone"
        )


@dataclass(frozen=True, eq=False)
class LatentScaling:
    """How much of each latent either model holds: the factors (d_sae,) by which its decoder after fits each model.

    Near 0 for a latent that is not there, near 1 for one that is wholly there. NaN for latents that were not active.
    """

    error_before: Tensor
    """Fitted to what the crosscoder's other latents leave of the model before."""
    error_after: Tensor
    reconstruction_before: Tensor
    """Fitted to the crosscoder's reconstruction of the model before."""
    reconstruction_after: Tensor

    @property
    def nu_error(self) -> Tensor:
        """(d_sae,) high where the model before holds the latent too, in what its reconstruction leaves (shrinkage)."""
        return self.error_before / self.error_after

    @property
    def nu_reconstruction(self) -> Tensor:
        """(d_sae,) high where the model before holds it in other latents (decoupling)."""
        return self.reconstruction_before / self.reconstruction_after


@torch.no_grad()
def latent_scaling(sae: SAE, activations: Iterable[Tensor]) -> LatentScaling:
    """Latent scaling (Minder et al. 2025, section 3) of a crosscoder on batches (tokens, d_in) of activations.

    For each latent j with values f and decoder d = after_j it gives the β that minimises Σ‖β f d − y‖², which is
    Σ f ⟨d, y⟩ / (‖d‖² Σ f²), for four y: each model's activations less what all *other* latents reconstruct of them,
    and each model's reconstruction. The models must be of one width.
    """
    decoders = Crosscoder.of(sae)
    if decoders.before.shape != decoders.after.shape:
        raise EmlabError("latent scaling compares decoders, so the crosscoder's two models must be of one width.")
    scales, width = sae.cfg.metadata.emlab_scales, decoders.after.shape[1]
    after = decoders.after.double()
    sums = torch.zeros(4, len(after), dtype=torch.float64, device=after.device)
    power = torch.zeros(len(after), dtype=torch.float64, device=after.device)
    for x in activations:
        latents = sae.encode(x.to(sae.W_enc))
        rebuilt, latents = sae.decode(latents).double(), latents.double()
        power += latents.square().sum(0)
        for i, (own, scale) in enumerate(zip((decoders.before.double(), after), scales, strict=True)):
            part = slice(i * width, (i + 1) * width)
            error = (x[:, part].double() - rebuilt[:, part]) * scale
            # ⟨d, y⟩ of the error, and the latent's own contribution put back: f ⟨d, d_own⟩.
            sums[i] += (latents * (error @ after.T)).sum(0) + latents.square().sum(0) * (after * own).sum(1)
            bias = sae.b_dec[part].double() * scale
            sums[2 + i] += (latents * ((rebuilt[:, part] * scale - bias) @ after.T)).sum(0)
    fitted = (sums / (power * after.square().sum(1))).float()
    return LatentScaling(*fitted)
