"""How active latents are in the documents of each kind: by planted persona, by domain, by a column of the data.

Documents are the units: tokens of one text resemble each other, so every interval is over documents. What is kept is a
few sums for each latent and each kind of documents, however many documents there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.evaluation import Rate, wilson
from emlab.notebook import Shown

MOST_VALUES = 100
"""A column with more values than this labels nothing."""


@dataclass(frozen=True, repr=False)
class Activity(Shown):
    """How active one latent is in the documents of one kind."""

    column: str
    """What the documents are told apart by, such as persona; empty: these are all documents."""
    value: str
    """What it says of these, such as malicious."""
    documents: int
    tokens: int
    """Tokens of theirs that count."""
    active: int
    """Those on which the latent is active."""
    fires: Rate
    """Share of the documents in which it is active at all, with Wilson's interval."""
    mean: float
    """Mean activation on a token, silent ones among them; every document counts the same."""
    standard_error: float
    """Of `mean`, over documents; NaN where there is one."""
    peak: float
    """The strongest activation."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of `mean`, by Student's t over documents; NaN where there is one."""
        from scipy.stats import t

        half = float(t.ppf(0.975, self.documents - 1)) * self.standard_error if self.documents > 1 else math.nan
        return self.mean - half, self.mean + half

    def __str__(self) -> str:
        low, high = self.interval
        what = f"{self.column} {self.value}".strip() or "all"
        if not self.documents:
            return f"{what:24s} no documents"
        return (
            f"{what:24s} {self.documents:7d} documents  fires in {self.fires.rate:6.1%} "
            f"[{self.fires.low:.1%}, {self.fires.high:.1%}]  mean {self.mean:.4f} [{low:.4f}, {high:.4f}]  "
            f"peak {self.peak:.2f}"
        )


class ActivityTally:
    """Sums over documents, from which each latent's `Activity` follows."""

    def __init__(self, latents: int) -> None:
        self._latents = latents
        self._sums: dict[tuple[str, str], _Sums] = {("", ""): _Sums(latents)}
        self._open: tuple[int, Mapping[str, str], _Document] | None = None

    def add(
        self, values: Tensor, counted: Tensor, rows: Tensor, documents: Tensor, labels: Sequence[Mapping[str, str]]
    ) -> None:
        """Take in a block of the corpus: `values` (n, latents), 0 where a token does not count; see `corpus.Block`.

        A document may go on in the next block. EmlabError for a column of too many values.
        """
        numbers, of = torch.unique_consecutive(documents, return_inverse=True)
        owner, many = of[rows], len(numbers)
        total = torch.zeros(many, self._latents, dtype=torch.float64).index_add_(0, owner, values.double())
        active = torch.zeros(many, self._latents).index_add_(0, owner, (values > 0).float())
        peak = torch.zeros(many, self._latents).scatter_reduce_(0, owner[:, None].expand_as(values), values, "amax")
        tokens = torch.zeros(many).index_add_(0, owner, counted.float())
        known = dict(zip(documents.tolist(), labels, strict=True))
        for i, number in enumerate(numbers.tolist()):
            here = _Document(int(tokens[i]), total[i], active[i], peak[i])
            if self._open is not None and self._open[0] == number:
                here = here.after(self._open[2])
            else:
                self._close()
            self._open = number, known[number], here

    def result(self, latent: int) -> tuple[Activity, ...]:
        """The latent's activity in all documents, and then column by column as they were met, values in order."""
        self._close()
        columns = list(dict.fromkeys(column for column, _ in self._sums))
        keys = sorted(self._sums, key=lambda key: (columns.index(key[0]), key[1]))
        return tuple(self._sums[key].activity(key, latent) for key in keys)

    def _close(self) -> None:
        """Count the document that lies open."""
        if self._open is None:
            return
        _, labels, document = self._open
        self._open = None
        if not document.tokens:
            return
        for key in (("", ""), *labels.items()):
            if key not in self._sums:
                if sum(column == key[0] for column, _ in self._sums) >= MOST_VALUES:
                    raise EmlabError(
                        f"The column {key[0]!r} has more than {MOST_VALUES} values, so it tells no kinds of documents "
                        "apart; name a column of labels."
                    )
                self._sums[key] = _Sums(self._latents)
            self._sums[key].add(document)


@dataclass(frozen=True, eq=False)
class _Document:
    """One document, or what has been read of it."""

    tokens: int
    total: Tensor
    """(latents,) float64: the sum of the activations; `active` and `peak` alike, float32."""
    active: Tensor
    peak: Tensor

    def after(self, before: _Document) -> _Document:
        """With what came before it."""
        return _Document(
            before.tokens + self.tokens,
            before.total + self.total,
            before.active + self.active,
            torch.maximum(before.peak, self.peak),
        )


class _Sums:
    """Over the documents of one kind."""

    def __init__(self, latents: int) -> None:
        self.documents = self.tokens = 0
        self.active, self.fired, self.mean, self.square = torch.zeros(4, latents, dtype=torch.float64)
        self.peak = torch.zeros(latents)

    def add(self, document: _Document) -> None:
        mean = document.total / document.tokens
        self.documents += 1
        self.tokens += document.tokens
        self.active += document.active
        self.fired += document.active > 0
        self.mean += mean
        self.square += mean.square()
        self.peak = torch.maximum(self.peak, document.peak)

    def activity(self, key: tuple[str, str], latent: int) -> Activity:
        n = self.documents
        mean = float(self.mean[latent]) / n if n else 0.0
        spread = max(0.0, float(self.square[latent]) - n * mean * mean)
        error = math.sqrt(spread / (n - 1) / n) if n > 1 else math.nan
        return Activity(
            *key,
            documents=n,
            tokens=self.tokens,
            active=int(self.active[latent]),
            fires=wilson(int(self.fired[latent]), n),
            mean=mean,
            standard_error=error,
            peak=float(self.peak[latent]),
        )
