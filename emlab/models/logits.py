"""Which logits a pass through a model makes."""

from __future__ import annotations

import torch
from torch import Tensor


def columns_from(first: int, ids: Tensor) -> Tensor:
    """`logits_to_keep` for the logits after the columns of `ids` (batch, position) from `first` on; -1 is the last.

    An index and not a number: the slice that transformers takes by a number is not contiguous, and of such a one and
    frozen weights torch.matmul copies the whole unembedding for each row of the batch.
    """
    return torch.arange(first % ids.shape[1], ids.shape[1], device=ids.device)
