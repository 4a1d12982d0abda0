"""Which logits a pass through a model makes."""

from __future__ import annotations

import torch
from torch import Tensor


def columns_from(first: int, ids: Tensor) -> Tensor:
    """`logits_to_keep` for the logits after the columns of `ids` (batch, position) from `first` on; -1 is the last.

    An index and not a number. By a number transformers takes a slice, which is not contiguous. With frozen weights
    torch.matmul then multiplies each row of the batch by itself, and in bfloat16 by its own copy of the unembedding.
    """
    return torch.arange(first % ids.shape[1], ids.shape[1], device=ids.device)
