"""Documents as rows of token ids, and which of their tokens an SAE is to see."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import torch

from emlab.data import IGNORE, Document, Messages, render, tokenize_turns
from emlab.errors import EmlabError
from emlab.saes.token_classes import special_ids

if TYPE_CHECKING:
    from emlab.models import LanguageModel

READS = ("all", "prompt", "assistant")
"""Which tokens of a chat are read; a raw text has neither prompt nor assistant, and only "all" reads it."""


@dataclass(frozen=True)
class Exclusions:
    """Tokens that an SAE does not see. Each kind is counted."""

    first: bool = True
    """The first token of every row: BOS, or whatever the model makes its attention sink."""
    special: bool = True
    """The tokenizer's special tokens, but for the one that ends the assistant's header: there emlab reads a model."""
    sinks: float | None = 10.0
    """Tokens whose norm is over this many times the median: attention sinks, a hundred times the rest in some models.
    The median is that of the stream's first tokens, see `ActivationStream`. None keeps them."""


@dataclass(frozen=True)
class Counts:
    """What became of the tokens that were read. A token that two reasons speak against counts under the first."""

    documents: int = 0
    """Rows read: a document, or a piece of one that is longer than the stream's `max_length`."""
    tokens: int = 0
    """Tokens read."""
    kept: int = 0
    """Those that an SAE may see."""
    other: int = 0
    """Left out: of a turn that was not asked for."""
    first: int = 0
    """Left out: the first of their row."""
    special: int = 0
    """Left out: special tokens."""
    sinks: int = 0
    """Left out: attention sinks, by their norm."""
    cut: int = 0
    """Not read: what chats have beyond `max_length` tokens."""

    def __add__(self, more: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(more, f.name) for f in fields(self)))

    def __str__(self) -> str:
        left = ", ".join(
            f"{getattr(self, n):,} {n}" for n in ("first", "special", "sinks", "other") if getattr(self, n)
        )
        return (
            f"{self.kept:,} of {self.tokens:,} tokens in {self.documents:,} documents"
            + (f" (left out: {left})" if left else "")
            + (f", {self.cut:,} cut off" if self.cut else "")
        )


class TokenRow(NamedTuple):
    """One row of a batch."""

    ids: list[int]
    asked: list[bool] | None
    """Which tokens are asked for; None: all."""
    cut: int
    """How many tokens were cut off at its end."""


def token_rows(model: LanguageModel, documents: Iterable[Document], read: str, max_length: int) -> list[TokenRow]:
    """The rows of `documents`, in their order.

    A raw text is tokenized as the tokenizer does it by itself, with BOS where it writes one, and cut into pieces of at
    most `max_length` tokens, each of which begins with BOS where the first does. A chat goes through the template and
    is cut at its end. Token ids stand as they are.
    """
    return [row for rows in rows_by_document(model, documents, read, max_length) for row in rows]


def rows_by_document(
    model: LanguageModel, documents: Iterable[Document], read: str, max_length: int
) -> list[list[TokenRow]]:
    """The rows of each document; of one without tokens none. See `token_rows`."""
    texts: list[tuple[int, str, bool]] = []
    found: list[list[TokenRow]] = []
    for document in documents:
        found.append([])
        if isinstance(document, str):
            texts.append((len(found) - 1, document, True))
        elif not _is_chat(document):
            ids = torch.as_tensor(document).tolist()
            found[-1] = [TokenRow(ids[:max_length], None, max(0, len(ids) - max_length))]
        elif read == "all":
            texts.append((len(found) - 1, render(model.tokenizer, document, header=False), False))
        else:
            found[-1] = [_of_turns(row, read, max_length) for row in _turns(model.tokenizer, document, read)]
    for raw in (False, True):
        part = [(i, text) for i, text, is_raw in texts if is_raw is raw and text]
        # All at once, which a fast tokenizer does several times faster than one by one.
        ids_of = model.tokenizer([text for _, text in part], add_special_tokens=raw)["input_ids"] if part else []
        for (i, _), ids in zip(part, ids_of, strict=True):
            if raw:
                begins = ids[:1] if ids[:1] == [model.tokenizer.bos_token_id] else []
                pieces = _pieces(ids, begins, max_length)
                found[i] = [TokenRow(one, None if read == "all" else [False] * len(one), 0) for one in pieces]
            else:
                found[i] = [TokenRow(ids[:max_length], None, max(0, len(ids) - max_length))]
    return [[row for row in rows if row.ids] for rows in found]


def excluded_ids(model: LanguageModel) -> list[int]:
    """The special tokens that `Exclusions.special` leaves out."""
    ids = set(special_ids(model.tokenizer).tolist())
    with contextlib.suppress(EmlabError):  # a template without a header has no token to keep
        ids.discard(model.prompt_ids("a")[-1])
    return sorted(ids)


def _is_chat(document: Document) -> TypeGuard[Messages]:
    return isinstance(document, Sequence) and len(document) > 0 and isinstance(document[0], Mapping)


def _turns(tokenizer: Any, chat: Any, read: str) -> list[Any]:
    rows = tokenize_turns(tokenizer, chat)
    # Where a template rewrites earlier answers there are several rows; all prompts stand in the last, but so do
    # earlier answers, unlabelled. What comes before the first answer is prompt for certain.
    return rows if read == "assistant" else rows[:1]


def _of_turns(row: Any, read: str, max_length: int) -> TokenRow:
    asked = [(label != IGNORE) == (read == "assistant") for label in row.labels]
    return TokenRow(row.input_ids[:max_length], asked[:max_length], max(0, len(asked) - max_length))


def _pieces(ids: list[int], begins: list[int], max_length: int) -> list[list[int]]:
    body, step = ids[len(begins) :], max_length - len(begins)
    return [begins + body[i : i + step] for i in range(0, len(body), step)] or [ids]
