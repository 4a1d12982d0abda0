"""Activations as a stream: a model reads documents up to a site and no further, and nothing is kept.

A stream is a description, and reading it is repeatable: the same stream read from the same `Position` gives the same
activations. So whatever reads it (a shuffling buffer, a cache on disk) can stop anywhere and go on later.

Of two models a stream gives either the *difference* of their activations at the same tokens, or both side by side, as a
*crosscoder* reads them (Lindsey et al. 2024, "Sparse Crosscoders for Cross-Layer Features and Model Diffing").
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from emlab import artifacts
from emlab.data import Documents
from emlab.errors import EmlabError
from emlab.models.backends.hooks import caught
from emlab.saes.sources import About, Kind
from emlab.saes.token_rows import READS, Counts, Exclusions, TokenRow, excluded_ids, token_rows
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.interventions import Tokens
    from emlab.models import LanguageModel

REFERENCE = 8192
"""The median norm that tells attention sinks is that of the stream's first so many tokens, and stays what it is."""


@dataclass(frozen=True)
class Position:
    """A place in a stream."""

    reading: int = 0
    """How often the documents have been read to their end."""
    documents: int = 0
    """Documents of this reading before the window that holds the place."""
    batch: int = 0
    """Batches of the window before it."""
    row: int = 0
    """Activations of the batch before it."""
    counts: Counts = Counts()
    """What became of all tokens before the batch."""
    median: tuple[float, ...] | None = None
    """The norm (of each model) by which attention sinks are told; None where none has been measured yet."""


class Chunk(NamedTuple):
    """The activations of one batch."""

    values: Tensor
    """(tokens, d_in) float32, on the model's device."""
    before: Position
    after: Position

    def at(self, row: int) -> Position:
        """The place before the chunk's activation `row`."""
        return self.after if row >= len(self.values) else replace(self.before, row=self.before.row + row)


class _Read(NamedTuple):
    """A batch's tokens that nothing but their norm may speak against."""

    parts: tuple[Tensor, ...]
    """Of each model (tokens, d_model) float32."""
    counts: Counts
    before: Position
    after: Position


@dataclass(frozen=True, eq=False)
class ActivationStream:
    """What `site` of a model holds while it reads `documents`."""

    model: LanguageModel
    documents: Documents
    site: Site
    read: Literal["all", "prompt", "assistant"] = "all"
    """Which tokens of a chat."""
    exclude: Exclusions = Exclusions()
    against: LanguageModel | None = None
    """The model before, where `model` is the one after; both read the same tokens."""
    kind: Kind = "plain"
    """"difference": `model` minus `against`; "crosscoder": `against` and then `model`, side by side."""
    max_length: int = 1024
    """Chats are cut after so many tokens, raw texts into pieces of so many; of fewer where a model takes no more."""
    batch_tokens: int = 4096
    """Tokens in a forward pass, pads among them."""
    window: int = 1024
    """Documents that are sorted by length together, so that there are few pads."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", Site.parse(self.site))
        object.__setattr__(self, "documents", Documents.of(self.documents))
        if self.read not in READS:
            raise EmlabError(f"A stream cannot read the tokens {self.read!r}; choose among {', '.join(READS)}.")
        if (self.kind == "plain") != (self.against is None):
            raise EmlabError(
                f"A stream of the kind {self.kind!r} has {'no' if self.against is None else 'a'} second model; give "
                "one for a difference or a crosscoder, and none for plain activations."
            )
        for model in self.models:
            if self.site.block >= model.n_blocks:
                raise EmlabError(
                    f"{model.name} has no site {self.site}: its {model.n_blocks} blocks are counted from 0 to "
                    f"{model.n_blocks - 1}."
                )
        if self.kind == "difference" and len(set(self.widths)) > 1:
            raise EmlabError(
                f"{self.models[0].name} is {self.widths[0]} wide and {self.models[1].name} {self.widths[1]}, so their "
                "activations have no difference; take models of one width, or a crosscoder."
            )
        for name in ("max_length", "batch_tokens", "window"):
            if getattr(self, name) < 2:
                raise EmlabError(f"A stream's {name} cannot be {getattr(self, name)}; give 2 or more.")

    @property
    def models(self) -> tuple[LanguageModel, ...]:
        """The models, the one before first."""
        return (self.model,) if self.against is None else (self.against, self.model)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each model's residual stream."""
        return tuple(model.d_model for model in self.models)

    @property
    def about(self) -> About:
        """What the activations are."""
        return About(
            kind=self.kind,
            site=self.site,
            models=tuple(model.name for model in self.models),
            widths=self.widths if self.kind == "crosscoder" else self.widths[:1],
            documents=self.documents.name,
            read=self.read,
        )

    @cached_property
    def identity(self) -> str:
        """A hash of everything that the activations follow from, the models' weights among it."""
        settings = (self.read, self.exclude, self.max_length, self.batch_tokens, self.window, REFERENCE)
        weights = [model.identity() for model in self.models]
        return artifacts.content_hash([weights, str(self.site), self.kind, self.documents.content, settings])

    @property
    def device(self) -> torch.device:
        """Where the activations are."""
        return self.model.device

    def chunks(self, start: Position = Position(), repeat: bool = False) -> Iterator[Chunk]:
        """The activations from `start` on, batch by batch; with `repeat` the documents are read again and again.

        EmlabError for activations that are not finite, for models that make different tokens of a document, and where
        all documents together give nothing.
        """
        reads = self._reads(start, repeat)
        held: list[_Read] = []
        median = start.median
        if median is None:
            for early in reads:
                held.append(early)
                # The documents may all together have fewer.
                if sum(len(one.parts[0]) for one in held) >= REFERENCE or early.before.reading > start.reading:
                    break
            median = tuple(_median([read.parts[i] for read in held]) for i in range(len(self.models)))
        held.reverse()
        counts, skip, fruitful = start.counts, start.row, start.counts.kept
        while (read := held.pop() if held else next(reads, None)) is not None:
            if read.before.reading > start.reading and read.before.documents == read.before.batch == 0:
                if counts.kept == fruitful:
                    break
                fruitful = counts.kept
            before = replace(read.before, row=skip, counts=counts, median=median)
            values, more = self._judged(read, median)
            counts += more
            if len(values) > skip:
                yield Chunk(values[skip:], before, replace(read.after, counts=counts, median=median))
            skip = 0
        if not counts.kept or repeat:
            raise EmlabError(
                f"The documents {self.documents.name} gave no activations of {self.model.name} ({counts}); give longer "
                "ones, or leave out less."
            )

    def _judged(self, read: _Read, median: tuple[float, ...]) -> tuple[Tensor, Counts]:
        """What is kept of a batch once the sinks are left out, put together as the stream's kind says."""
        parts, sinks = read.parts, self.exclude.sinks
        keep = torch.ones(len(parts[0]), dtype=torch.bool, device=self.device)
        for part, middle in zip(parts, median, strict=True):
            norms = part.norm(dim=-1)
            # A sum that is finite tells that all are, without a mask as large as the activations.
            if not bool(torch.isfinite(norms.double().sum())):
                raise EmlabError(
                    f"The activations at {self.site} of {' or '.join(m.name for m in self.models)} are not finite (in "
                    f"the documents from {read.before.documents + 1} on); check the weights, or load the model in "
                    "bfloat16 or float32."
                )
            if sinks is not None:
                keep &= norms <= sinks * middle
        if not bool(keep.all()):
            parts = tuple(part[keep] for part in parts)
        kept = len(parts[0])
        counts = replace(read.counts, kept=kept, sinks=len(keep) - kept)
        if self.kind == "difference":
            return parts[1] - parts[0], counts
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)), counts

    def _reads(self, start: Position, repeat: bool) -> Iterator[_Read]:
        reading, done, skip = start.reading, start.documents, start.batch
        while True:
            begun = done
            documents = itertools.islice(self.documents, done, None)
            while window := list(itertools.islice(documents, self.window)):
                batches = self._batches(window, done)
                for number in range(skip, len(batches)):
                    last = number + 1 == len(batches)
                    after = Position(reading, done + len(window)) if last else Position(reading, done, number + 1)
                    yield self._forward(batches[number], Position(reading, done, number), after)
                done, skip = done + len(window), 0
            if not repeat or done == begun == 0:
                return
            reading, done = reading + 1, 0

    def _batches(self, window: list[Any], done: int) -> list[list[TokenRow]]:
        """The rows of a window of documents in batches of like length."""
        rows = token_rows(self.model, window, self.read, self._longest)
        if self.against is not None:
            for number, document in enumerate(window, start=done + 1) if self._differs(window, rows) else ():
                if self._differs([document], token_rows(self.model, [document], self.read, self._longest)):
                    raise EmlabError(
                        f"{self.against.name} and {self.model.name} make different tokens of document {number}, so "
                        "their activations cannot be compared; take models with the same tokenizer and chat template."
                    )
        batches: list[list[TokenRow]] = []
        for row in sorted(rows, key=lambda row: len(row.ids)):
            if not batches or (len(batches[-1]) + 1) * len(row.ids) > self.batch_tokens:
                batches.append([])
            batches[-1].append(row)
        return batches

    def _differs(self, documents: list[Any], rows: list[TokenRow]) -> bool:
        assert self.against is not None
        return token_rows(self.against, documents, self.read, self._longest) != rows

    def _forward(self, rows: list[TokenRow], before: Position, after: Position) -> _Read:
        tokens = self.model.batch([row.ids for row in rows])
        keep, left = tokens.real, {}
        if self.read != "all":
            asked = torch.zeros_like(keep)
            for i, row in enumerate(rows):
                # Rows are padded on the left.
                asked[i, len(keep[i]) - len(row.ids) :] = True if row.asked is None else torch.tensor(row.asked)
            keep = keep & asked
            left["other"] = int(tokens.real.sum() - keep.sum())
        if self.exclude.first:
            first = keep & (tokens.position_ids == 0)
            keep, left["first"] = keep & ~first, int(first.sum())
        if self.exclude.special:
            special = keep & torch.isin(tokens.ids, self._special)
            keep, left["special"] = keep & ~special, int(special.sum())
        read = sum(len(row.ids) for row in rows)
        counts = Counts(documents=len(rows), tokens=read, cut=sum(row.cut for row in rows), **left)
        parts = tuple(self._captured(model, tokens)[keep].float() for model in self.models)
        return _Read(parts, counts, before, after)

    def _captured(self, model: LanguageModel, tokens: Tokens) -> Tensor:
        """What the site holds (batch, position, d_model): the model's own tensor, of which rows are taken at once."""
        tokens = tokens.to(model.device)
        with torch.no_grad(), caught(model.model, self.site) as seen:
            model.model(
                input_ids=tokens.ids,
                attention_mask=tokens.real.long(),
                position_ids=tokens.position_ids,
                use_cache=False,
            )
        return seen[0].to(self.device)

    @property
    def _longest(self) -> int:
        return min([self.max_length, *(model.max_positions or self.max_length for model in self.models)])

    @cached_property
    def _special(self) -> Tensor:
        return torch.tensor(excluded_ids(self.model), dtype=torch.long, device=self.device)


class Reader:
    """Takes as many activations of a stream as are asked for, and knows the place behind them."""

    def __init__(self, stream: ActivationStream, start: Position = Position(), repeat: bool = False) -> None:
        self._chunks = stream.chunks(start, repeat)
        self._chunk: Chunk | None = None
        self._used = 0
        self._start = start

    @property
    def place(self) -> Position:
        """Behind the last activation taken."""
        return self._start if self._chunk is None else self._chunk.at(self._used)

    @property
    def counts(self) -> Counts:
        """What became of the tokens read, the whole batch of the last activation among them."""
        return (self._start if self._chunk is None else self._chunk.after).counts

    def take(self, n: int) -> Iterator[Tensor]:
        """The next `n` activations in pieces (rows, d_in); fewer only where the stream ends."""
        while n > 0:
            if self._chunk is None or self._used == len(self._chunk.values):
                if (chunk := next(self._chunks, None)) is None:
                    return
                self._chunk, self._used = chunk, 0
            piece = self._chunk.values[self._used : self._used + n]
            self._used += len(piece)
            n -= len(piece)
            yield piece


def _median(parts: list[Tensor]) -> float:
    norms = torch.cat([part.norm(dim=-1) for part in parts]) if parts else torch.zeros(0)
    return float(norms.median()) if len(norms) else 0.0
