"""A TopK SAE that chooses its latents in other units than it gives them in.

SAELens' TopK either chooses by activation times row length (`rescale_acts_by_decoder_norm`) or by the bare activation.
One of the second kind whose decoder rows differ in length, as sparsify writes them without `normalize_decoder`, cannot
be given unit rows there: its choice would change.

This module subclasses SAELens' class, so it imports SAELens at its top: import it inside the function that needs it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from sae_lens.saes.topk_sae import TopKSAE
from torch import Tensor


class ScaledTopKSAE(TopKSAE):
    """Chooses the k largest of its pre-activations, and then multiplies them by `lengths`; its rows are unit.

    It is saved with rows of their old lengths, as a plain SAE of SAELens.
    """

    lengths: Tensor
    """(d_sae,): what the rows' lengths were."""

    @classmethod
    def of(cls, sae: TopKSAE, lengths: Tensor) -> ScaledTopKSAE:
        """One with the weights of `sae`, whose rows are unit by now."""
        config = copy.deepcopy(sae.cfg)
        config.device = "meta"  # no weights are drawn only to be replaced
        found = cls(config)
        found.cfg.device = str(sae.W_dec.device)
        found.device = sae.W_dec.device
        found.load_state_dict(sae.state_dict(), assign=True)
        found.activation_fn = sae.activation_fn  # by size, for an AbsTopK
        found.register_buffer("lengths", lengths.to(sae.W_dec))
        return found

    def encode(self, x: Tensor) -> Tensor:
        """(…, d_sae) activations of `x` (…, d_in)."""
        return super().encode(x) * self.lengths

    @property
    def rows(self) -> Tensor:
        """(d_sae, d_in): the decoder rows at their old lengths."""
        return self.W_dec.detach() * self.lengths[:, None]

    @torch.no_grad()
    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        """The weights as a TopK SAE of SAELens has them."""
        state_dict["W_dec"] = state_dict["W_dec"] * state_dict.pop("lengths")[:, None]
