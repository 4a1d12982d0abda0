"""Penalties: what is added to the loss of every step of a supervised fine-tune, to keep a model from misaligning.

A penalty makes a pass of its own. So it does not depend on how a batch is divided into passes, and edits of the
training, which act on the training's own passes, do not reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from emlab.data import IGNORE, Row
from emlab.errors import EmlabError
from emlab.interventions import Tokens, check_positions, where
from emlab.models import LanguageModel
from emlab.models.backends.hooks import caught
from emlab.sites import Site
from emlab.training.loss import last_answer
from emlab.training.randomness import seed_of_step


class Penalty(Protocol):
    """What every penalty offers."""

    def loss(self, model: LanguageModel, rows: Sequence[Row], step: int) -> Tensor:
        """What is added to the loss of step `step`, whose batch is `rows`: a scalar with a gradient."""

    def chats(self, batch: int) -> tuple[int, int]:
        """Of a step: how many chats go forwards and backwards, and how many forwards only, for it alone."""


@dataclass(frozen=True, eq=False)
class ActivationPenalty:
    """`weight` × the mean activation of something read at a site, over the batch's own tokens.

    What is read is what the fine-tune would use to misalign: the persona latent of a dictionary, or the part of the
    stream along a direction.
    """

    site: Site
    encode: Callable[[Tensor], Tensor]
    """From activations (…, d_model) to values (…), which have a gradient."""
    weight: float
    positions: str = "sentence"

    def __post_init__(self) -> None:
        check_positions(self.positions)
        _check_weight(self.weight, f"activation at {self.site}")

    def loss(self, model: LanguageModel, rows: Sequence[Row], step: int) -> Tensor:
        tokens = _padded(model, [row.input_ids for row in rows], [last_answer(row) for row in rows])
        with caught(model.model, self.site, gradient=True) as seen:
            model.model(input_ids=tokens.ids, use_cache=False)
        chosen = where(self.positions, tokens, model.sentence_ends if self.positions == "sentence" else None)
        values = self.encode(seen[0].float())[chosen]
        if not values.requires_grad:
            raise EmlabError(f"The penalty reads {self.site}, before anything that is trained; choose a later block.")
        return self.weight * values.mean()

    def chats(self, batch: int) -> tuple[int, int]:
        return batch, 0


@dataclass(frozen=True, eq=False)
class DivergencePenalty:
    """`weight` × the KL divergence of the model's next-token distributions from a reference's, on other chats.

    KL(reference ‖ model), in nats a token, over the assistant's tokens of `size` of `rows`, drawn anew in every step.
    After Kaczér et al. 2025, "In-training defenses against emergent misalignment" (arXiv:2508.06249).
    """

    reference: LanguageModel
    rows: tuple[Row, ...]
    weight: float
    size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        _check_weight(self.weight, f"divergence from {self.reference.name}")
        if not self.rows or self.size < 1:
            raise EmlabError("A divergence is taken on chats, and none are given; give some, and a size of 1 or more.")

    def loss(self, model: LanguageModel, rows: Sequence[Row], step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed_of_step(self.seed, step) % 2**63)
        drawn = torch.randperm(len(self.rows), generator=generator)[: self.size].tolist()
        chosen = [self.rows[i] for i in drawn]
        ids = _padded(model, [row.input_ids for row in chosen]).ids
        labels = Tokens.pad([row.labels for row in chosen], None, IGNORE, side="right").ids.to(ids.device)
        at = labels[:, 1:] != IGNORE
        with torch.no_grad():
            wanted = self.reference.model(input_ids=ids, use_cache=False).logits[:, :-1][at].float().log_softmax(-1)
        found = model.model(input_ids=ids, use_cache=False).logits[:, :-1][at].float().log_softmax(-1)
        return self.weight * torch.nn.functional.kl_div(found, wanted, log_target=True, reduction="batchmean")

    def chats(self, batch: int) -> tuple[int, int]:
        size = min(self.size, len(self.rows))
        return size, size


def _padded(model: LanguageModel, rows: Sequence[list[int]], starts: list[int] | None = None) -> Tokens:
    """Rows padded on the right, where causal attention never looks."""
    return Tokens.pad(list(rows), starts, model.tokenizer.pad_token_id or 0, side="right").to(model.device)


def _check_weight(weight: float, of: str) -> None:
    if not 0 <= weight < float("inf"):
        raise EmlabError(f"The penalty on the {of} has the weight {weight}; give 0 or more.")
