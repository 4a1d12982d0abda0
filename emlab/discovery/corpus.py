"""A corpus as it streams through a model: token by token what a site holds, and which tokens count.

Documents are read a block at a time and nothing is kept, so memory does not grow with the corpus.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from emlab.data import Documents, LabelledDocument
from emlab.errors import EmlabError
from emlab.saes import Exclusions
from emlab.saes.token_rows import Counts, TokenRow, excluded_ids, rows_by_document
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.models import LanguageModel

WINDOW = 64
"""Documents that are tokenized at a time."""


class Block(NamedTuple):
    """A stretch of the corpus: whole rows (documents, or pieces of long ones), in their order. All on the CPU."""

    values: Tensor
    """(n, width) float32: the activation of each token."""
    tokens: Tensor
    """(n,) int64: its id."""
    rows: Tensor
    """(n,) int64: its row in the block, ascending."""
    counted: Tensor
    """(n,) bool: whether it counts; first tokens, special ones and attention sinks do not."""
    documents: Tensor
    """(rows,) int64: the document of each row, counted from 0 over the corpus, ascending."""
    labels: tuple[Mapping[str, str], ...]
    """What is known of each row's document."""
    counts: Counts
    """What became of the tokens of this block."""


def blocks(
    model: LanguageModel,
    documents: Documents,
    site: Site,
    exclude: Exclusions = Exclusions(),
    max_length: int = 1024,
    block_tokens: int = 8192,
) -> Iterator[Block]:
    """The corpus, block by block, each of at most `block_tokens` tokens (or one row).

    Chats are cut after `max_length` tokens, raw texts into pieces of so many. Attention sinks are told by the median
    norm of the first block's tokens. EmlabError where there are no documents, and for activations that are not finite.
    """
    longest = min(max_length, model.max_positions or max_length)
    special = torch.tensor(excluded_ids(model), dtype=torch.long)
    median: float | None = None
    for part in _parts(_rows(model, documents, longest), block_tokens):
        read = model.activations([row.ids for _, _, row in part], site, "all", batch_size=32)
        norms = read.values.norm(dim=-1)
        if not bool(torch.isfinite(norms.double().sum())):
            raise EmlabError(
                f"The activations at {site} of {model.name} are not finite (in documents {part[0][0] + 1} to "
                f"{part[-1][0] + 1}); check the weights, or load the model in bfloat16 or float32."
            )
        first = (read.positions == 0) & exclude.first
        kind = torch.isin(read.tokens, special) & exclude.special & ~first
        counted = ~(first | kind)
        counts = Counts(len(part), len(read), first=int(first.sum()), special=int(kind.sum()))
        if exclude.sinks is not None:
            if median is None and bool(counted.any()):
                median = float(norms[counted].median())
            if median is not None:
                counted &= norms <= exclude.sinks * median
        kept = int(counted.sum())
        left = len(read) - counts.first - counts.special - kept
        cut = sum(row.cut for _, _, row in part)
        yield Block(
            read.values,
            read.tokens,
            read.rows,
            counted,
            torch.tensor([number for number, _, _ in part]),
            tuple(labels for _, labels, _ in part),
            replace(counts, kept=kept, sinks=left, cut=cut),
        )


_Numbered = tuple[int, Mapping[str, str], TokenRow]
"""A row, the number of its document, and what is known of that."""


def _rows(model: LanguageModel, documents: Documents, longest: int) -> Iterator[_Numbered]:
    stream: Iterator[LabelledDocument] = documents.labelled()
    number = 0
    while window := list(itertools.islice(stream, WINDOW)):
        rows = rows_by_document(model, [one.document for one in window], "all", longest)
        for one, of_document in zip(window, rows, strict=True):
            for row in of_document:
                yield number, one.labels, row
            number += 1
    if not number:
        raise EmlabError(f"There are no documents to read in {documents}; give at least one.")


def _parts(rows: Iterator[_Numbered], tokens: int) -> Iterator[list[_Numbered]]:
    """Runs of rows of at most so many tokens together, and of one row at least."""
    part: list[_Numbered] = []
    size = 0
    for row in rows:
        if part and size + len(row[2].ids) > tokens:
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row[2].ids)
    if part:
        yield part
