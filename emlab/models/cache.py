"""A key-value cache written in place.

The cache of transformers grows by concatenation: every decoded token copies all that went before, which for a small
model in large batches costs more than the model itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

LEAST_LEAD = 8
"""Tokens that all rows of a batch begin with, as a system turn's, are read once where there are so many."""
WHOLE = "_emlab_reads_whole"
"""An attribute of a Hugging Face model while each row must be read in one pass, since edits tell prompt from answer by
what is in the cache."""


def common_start(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with."""
    first, last = min(rows), max(rows)  # as words in a dictionary: what these two share, all share
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(map(len, rows)))


class _InPlaceLayer(DynamicLayer):
    """One layer's keys and values, (batch, head, position, d_head), in buffers made once at full length."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._keys, self._values = (self._buffer(key_states), self._buffer(value_states))
        end = self.length + key_states.shape[-2]
        self._keys[:, :, self.length : end] = key_states
        self._values[:, :, self.length : end] = value_states
        self.length = end
        self._view()
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.is_initialized:
            self._keys, self._values = self._keys.index_select(0, indices), self._values.index_select(0, indices)
            self._view()

    def pick(self, indices: Tensor, room: Room, name: int) -> None:
        """As `batch_select_indices`, into `room`."""
        held = []
        for i, states in enumerate((self._keys, self._values)):
            out = room.take((name, i), (len(indices), *states.shape[1:]), states)
            held.append(torch.index_select(states, 0, indices, out=out))
        self._keys, self._values = held
        self._view()

    def _buffer(self, states: Tensor) -> Tensor:
        batch, heads, _, width = states.shape
        return torch.zeros(batch, heads, self.capacity, width, dtype=states.dtype, device=states.device)

    def _view(self) -> None:
        self.keys, self.values = self._keys[:, :, : self.length], self._values[:, :, : self.length]


class Room:
    """Memory for copies that are made again and again: to get it anew each time takes longer than to fill it."""

    def __init__(self) -> None:
        self._held: dict[Hashable, Tensor] = {}

    def take(self, name: Hashable, shape: Sequence[int], like: Tensor) -> Tensor:
        """An uninitialized tensor in place of the last one of this name."""
        size = math.prod(shape)
        held = self._held.get(name)
        if held is None or len(held) < size:
            held = self._held[name] = torch.empty(size, dtype=like.dtype, device=like.device)
        return held[:size].view(*shape)


def picked(cache: DynamicCache, index: Tensor, first: int, room: Room) -> DynamicCache:
    """A cache with copies of the rows `index`, int64 (n,); the layers before `first` are shared.

    The given cache stays as it is. The copies are good until the next ones are made in the same `room`.
    """
    chosen = copy.copy(cache)
    chosen.layers = list(cache.layers)
    for i, layer in enumerate(cache.layers):
        if i >= first:
            chosen.layers[i] = copied = copy.copy(layer)
            if isinstance(copied, _InPlaceLayer):
                copied.pick(index, room, i)
            else:
                copied.batch_select_indices(index)
    return chosen


def in_place_cache(config: Any, capacity: int) -> DynamicCache:
    """A cache for up to `capacity` positions; layers that are no plain attention (sliding windows) stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [_InPlaceLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
