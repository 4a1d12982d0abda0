"""Batches: in which order chats are trained on, and in how many passes a batch goes through the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from emlab.data import Row

_LOGITS_AT_ONCE = 2**27
"""Logits held in one pass at most: half a gigabyte in float32, and about as much again for their gradient."""

_POOL = 50
"""Batches among which chats of like length are put together: of all, the longest would always meet each other."""


def batches(rows: Sequence[Row], size: int, seed: int, by_length: bool = False) -> Iterator[list[Row]]:
    """Endless batches: a fresh order for every pass through the rows, none left out. All of it follows from `seed`.

    `by_length` sorts every fifty batches' worth of a pass by length, and draws the order of the batches made of it.
    """
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            order = torch.randperm(len(rows), generator=generator).tolist()
            waiting += _grouped(order, rows, size, generator) if by_length else order
        yield [rows[i] for i in waiting[:size]]
        waiting = waiting[size:]


def passes(rows: Sequence[Row], vocabulary: int, at_most: int | None = None) -> Iterator[list[Row]]:
    """A batch in as many passes as rows of unlike length and a large vocabulary ask for; each token weighs the same.

    `at_most` limits the rows of a pass.
    """
    part: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.input_ids)):
        length = len(row.input_ids)
        padded = part and length > 1.3 * len(part[0].input_ids) + 16
        if part and (padded or len(part) == at_most or (len(part) + 1) * length * vocabulary > _LOGITS_AT_ONCE):
            yield part
            part = []
        part.append(row)
    yield part


def _grouped(order: list[int], rows: Sequence[Row], size: int, generator: torch.Generator) -> list[int]:
    found: list[int] = []
    for begin in range(0, len(order), _POOL * size):
        pool = sorted(order[begin : begin + _POOL * size], key=lambda i: len(rows[i].input_ids))
        parts = [pool[i : i + size] for i in range(0, len(pool), size)]
        drawn = torch.randperm(len(parts), generator=generator).tolist()
        # A part that is not full comes last, or it would cut the ones behind it elsewhere.
        drawn.sort(key=lambda part: len(parts[part]) < size)
        found += [i for part in drawn for i in parts[part]]
    return found
