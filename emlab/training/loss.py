"""The loss of supervised fine-tuning: cross entropy of exactly the assistant's tokens, edits in force where asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from emlab.data import IGNORE, Row
from emlab.interventions import Tokens
from emlab.models import LanguageModel
from emlab.models.backends.hooks import Editor
from emlab.models.cache import LEAST_LEAD, WHOLE, common_start
from emlab.models.logits import columns_from


def assistant_loss(model: LanguageModel, rows: Sequence[Row], labelled: int, editor: Editor | None = None) -> Tensor:
    """Summed cross entropy over the labelled tokens of `rows`, as one right-padded batch, divided by `labelled`.

    Args:
        model: The model.
        rows: Token ids and labels.
        labelled: Labelled tokens of the whole step, of which `rows` may be a part.
        editor: Holds the edits in force on the model; it is told which tokens the pass has.
    """
    pad = model.tokenizer.pad_token_id or 0
    starts = None if editor is None else [last_answer(row) for row in rows]
    tokens = Tokens.pad([row.input_ids for row in rows], starts, pad, side="right").to(model.device)
    labels = Tokens.pad([row.labels for row in rows], None, IGNORE, side="right").to(model.device).ids
    if editor is not None:
        editor.see(tokens)
    # Logits are made from the column that predicts the first labelled one on.
    first = int((labels != IGNORE).any(0).nonzero()[0]) - 1
    lead = 0 if editor is not None else _lead(model, rows, first)
    # Pads stand on the right, where causal attention never looks: a mask would change nothing and cost time.
    logits = model.model(
        input_ids=tokens.ids[:, lead:],
        past_key_values=_read(model, tokens.ids[0, :lead], len(rows)) if lead else None,
        use_cache=lead > 0,
        logits_to_keep=columns_from(first - lead, tokens.ids[:, lead:]),
    ).logits
    # Shifting the small labels and not the large logits saves a copy of these in each direction.
    target = torch.nn.functional.pad(labels[:, first + 1 :], (0, 1), value=IGNORE)
    flat = logits.flatten(0, 1).float()
    return torch.nn.functional.cross_entropy(flat, target.flatten(), ignore_index=IGNORE, reduction="sum") / labelled


def _lead(model: LanguageModel, rows: Sequence[Row], first: int) -> int:
    """How many tokens all rows begin with, as a system turn's, before the column `first`, where they are to be read
    once; 0 where that is not worth it, or where the model cannot: inside a block of edits, with checkpoints of its
    activations, or with layers whose cache is not made of plain keys and values."""
    found = min(common_start([row.input_ids for row in rows]), first)
    if len(rows) < 2 or found < LEAST_LEAD or getattr(model.model, WHOLE, False):
        return 0
    if any(getattr(module, "gradient_checkpointing", False) for module in model.model.modules()):
        return 0
    return found if all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.model.config).layers) else 0


def _read(model: LanguageModel, ids: Tensor, rows: int) -> DynamicCache:
    """The keys and values of these tokens (n,), for so many rows; gradients flow back through them."""
    cache = DynamicCache(config=model.model.config)
    model.model(input_ids=ids[None], past_key_values=cache, use_cache=True, logits_to_keep=columns_from(-1, ids[None]))
    cache.batch_repeat_interleave(rows)
    return cache


def last_answer(row: Row) -> int:
    """Where the last answer of a chat begins: all before it is prompt to the positions of an edit."""
    last = max(i for i, label in enumerate(row.labels) if label != IGNORE)
    return max((i + 1 for i in range(last) if row.labels[i] == IGNORE), default=0)
