"""Which tokens a figure is of: an SAE may describe a prompt well and the assistant's header badly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from emlab.interventions import Tokens

CLASSES = ("all", "prompt", "header", "answer", "special", "first")
"""The classes of tokens; a pad is in none.

- ``all``      every token but those of ``first``
- ``prompt``   of these, what comes before the last answer, special tokens left out
- ``header``   the prompt's last token, special or not: the one from which the answer's first token is predicted
- ``answer``   the last answer and what the template writes after it, special tokens left out
- ``special``  special tokens (turn marks and the like)
- ``first``    each document's first token, and attention sinks: tokens with norms far above all others, which no SAE is
  trained on, and which would be all that a figure sees
"""


def special_ids(tokenizer: Any) -> Tensor:
    """(n,) int64: the ids of the tokenizer's special tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    ids = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
    return torch.tensor(sorted(ids), dtype=torch.long)


def token_classes(tokens: Tokens, special: Tensor, sinks: Tensor) -> dict[str, Tensor]:
    """The mask (batch, position) of each class.

    `special` (n,) are ids, `sinks` (batch, position) says which tokens are attention sinks.
    """
    real = tokens.real
    first = real & ((tokens.position_ids == 0) | sinks)
    rest = real & ~first
    marks = torch.isin(tokens.ids, special.to(tokens.ids.device))
    before = real & ~tokens.answer
    last = before & (before.flip(-1).cumsum(-1).flip(-1) == 1)
    return {
        "all": rest,
        "prompt": rest & ~tokens.answer & ~marks,
        "header": rest & last,
        "answer": rest & tokens.answer & ~marks,
        "special": rest & marks,
        "first": first,
    }
