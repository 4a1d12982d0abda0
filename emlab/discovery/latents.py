"""Latents of an SAE, however many: encoded a few tokens at a time, and kept as the few that are active.

An SAE of two million latents makes eight megabytes of every token, so nothing here holds more of them at once than fit
a budget. A token's latents are encoded together, since a TopK SAE must see them all to choose among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.saes import dense_chunks

if TYPE_CHECKING:
    from sae_lens import SAE

BUDGET = 64 * 2**20
"""Bytes that the dense activations of a chunk of tokens may take; what encoding needs besides is a few times that."""


@dataclass(frozen=True, eq=False)
class ActiveLatents:
    """The active latents of some tokens, one entry each, in order of the tokens."""

    tokens: Tensor
    """(n,) int64: which of the tokens."""
    latents: Tensor
    """(n,) int64."""
    values: Tensor
    """(n,) float32: the activation; not 0."""

    def __len__(self) -> int:
        return len(self.values)

    def __neg__(self) -> ActiveLatents:
        return ActiveLatents(self.tokens, self.latents, -self.values)

    def at(self, index: Tensor) -> ActiveLatents:
        """Some of the entries: `index` is int64, or a bool for each."""
        return ActiveLatents(self.tokens[index], self.latents[index], self.values[index])

    @classmethod
    def cat(cls, parts: Sequence[ActiveLatents]) -> ActiveLatents:
        """The entries of all, one after the other."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("tokens", "latents", "values")))


def check_latents(sae: SAE, latents: Sequence[int]) -> None:
    """EmlabError where the SAE lacks one of the latents."""
    for latent in latents:
        if not 0 <= latent < sae.cfg.d_sae:
            raise EmlabError(
                f"the SAE has latents 0 to {sae.cfg.d_sae - 1} and no latent {latent}: choose one of these."
            )


def check_width(sae: SAE, width: int, whose: str) -> None:
    """EmlabError unless the SAE reads activations of this width, of one model."""
    if getattr(getattr(sae.cfg, "metadata", None), "emlab_kind", None) == "difference":
        raise EmlabError(
            f"the SAE is of the difference of two models' activations and does not read {whose}: give an SAE of one "
            "model."
        )
    if sae.cfg.d_in != width:
        raise EmlabError(f"the SAE reads {sae.cfg.d_in} dimensions and {whose} has {width}: use an SAE of this model.")


def active_latents(sae: SAE, values: Tensor, budget: int = BUDGET) -> ActiveLatents:
    """The active latents of activations (n, d_in); on the CPU."""
    parts = [ActiveLatents(torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long), torch.empty(0))]
    for rows, dense in dense_chunks(sae, values, budget):
        tokens, latents = dense.nonzero(as_tuple=True)
        parts.append(ActiveLatents(tokens.cpu() + rows.start, latents.cpu(), dense[tokens, latents].cpu()))
    return ActiveLatents.cat(parts)
