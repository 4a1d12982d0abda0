"""Activations on disk, written once and trained on as often as wanted.

A cache is a folder of shards, plain arrays of float32 that are memory-mapped when they are read, and an `index.json`
with the shards' checksums. A shard appears whole or not at all, and the index names it only then: so a writing that was
killed, or that met a full disk, goes on at the next shard when it is asked for again, and the bytes are the same as if
nothing had happened. What is in the folder is told by an identity that follows from the model's weights, the site, the
documents and what is left out; a cache of anything else is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.notebook import Shown
from emlab.records import restored
from emlab.saes.sources import About, ShuffledBatches, State, Statistics
from emlab.saes.stream import ActivationStream, Position, Reader
from emlab.saes.token_rows import Counts

INDEX = "index.json"
FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """One file of a cache."""

    file: str
    rows: int
    sha256: str
    after: Position
    """The place in the stream behind its last activation."""


@dataclass(frozen=True, eq=False, repr=False)
class ActivationCache(Shown):
    """A cache on disk. A training sees its activations in an order as random as if they were in memory."""

    folder: Path
    about: About
    stream: str
    """The identity of the stream that was written."""
    shards: tuple[Shard, ...]
    sums: tuple[Tensor, tuple[float, ...]]
    """Over all activations: their sum (d_in,) float64, and the sum of the norms of each model's part."""
    counts: Counts
    """What became of the tokens that were read for it."""
    whole: bool
    """Whether the stream had come to its end."""
    device: torch.device = torch.empty(0).device
    """Where batches go."""

    @property
    def identity(self) -> str:
        """The stream's, and how much of it there is."""
        return artifacts.content_hash([self.stream, len(self)])

    @classmethod
    def open(cls, folder: str | Path, device: torch.device | None = None, verify: bool = True) -> ActivationCache:
        """Open a cache; `verify` reads all of it and compares the checksums, the lengths are compared in any case.

        EmlabError where it is missing, and where a shard is missing, cut short or changed.
        """
        folder = artifacts.place(folder)
        cache = cls._of_index(folder, torch.empty(0).device if device is None else device)
        for shard in cache.shards:
            _check(folder, shard, cache.about.d_in, verify)
        return cache

    @classmethod
    def _of_index(cls, folder: Path, device: torch.device) -> ActivationCache:
        raw, where = artifacts.read_json(folder / INDEX), str(folder / INDEX)
        try:
            if raw["format"] != FORMAT:
                raise EmlabError(f"{folder} is a cache of another version of emlab; write it anew.")
            shards = restored(raw["shards"], tuple[Shard, ...], where)
            sums = torch.tensor(raw["sum"], dtype=torch.float64), tuple(raw["norms"])
            about, counts = restored(raw["about"], About, where), restored(raw["counts"], Counts, where)
            return cls(folder, about, raw["stream"], shards, sums, counts, raw["whole"], device)
        except (KeyError, TypeError, AttributeError) as error:
            raise EmlabError(f"{folder / INDEX} is no index of a cache ({error!r}); write the cache anew.") from error

    def _save_index(self) -> None:
        total, norms = self.sums
        artifacts.write_json(
            self.folder / INDEX,
            {
                "format": FORMAT,
                "stream": self.stream,
                "about": self.about.plain(),
                "counts": asdict(self.counts),
                "whole": self.whole,
                "shards": [asdict(shard) for shard in self.shards],
                "sum": total.tolist(),
                "norms": norms,
            },
        )

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def __str__(self) -> str:
        return f"{len(self):,} activations in {len(self.shards)} shards in {self.folder}: {self.counts}"

    def rows(self, index: Tensor) -> Tensor:
        """The activations of the given numbers, int64 (n,): float32 (n, d_in), on the cache's device."""
        out = torch.empty(len(index), self.about.d_in)
        starts = torch.tensor([0, *(shard.rows for shard in self.shards)]).cumsum(0)
        of = torch.searchsorted(starts, index, right=True) - 1
        for shard in of.unique().tolist():
            here = (of == shard).nonzero()[:, 0]
            out[here] = self._mapped[shard][index[here] - starts[shard]]
        return out.to(self.device)

    @cached_property
    def _mapped(self) -> list[Tensor]:
        found = []
        for shard in self.shards:
            shape = (shard.rows, self.about.d_in)
            # Copy on write: nothing is written, but torch warns of arrays that cannot be.
            found.append(torch.from_numpy(np.memmap(self.folder / shard.file, np.dtype("<f4"), "c", shape=shape)))
        return found

    def statistics(self) -> Statistics:
        """Of all activations."""
        total, norms = self.sums
        return Statistics((total / len(self)).float().to(self.device), tuple(norm / len(self) for norm in norms))

    def batches(self, batch_size: int, total: int, seed: int, state: State | None = None) -> ShuffledBatches:
        """As many passes as `total` takes. What is in memory is the order, 8 bytes an activation."""
        return ShuffledBatches(self.rows, len(self), batch_size, seed, self.statistics, asdict(self.counts), state)


def write_cache(
    stream: ActivationStream,
    folder: str | Path,
    tokens: int,
    shard_rows: int = 65_536,
    verify: bool = True,
    progress: bool | None = None,
) -> ActivationCache:
    """A cache of the first `tokens` activations of `stream`, or of all that the documents give.

    What the folder holds of the same stream already is kept: a finished cache is opened, one that was not finished is
    gone on with, and one that is too short is made longer. A shard that is missing is written again. EmlabError for a
    folder that holds something else.

    Args:
        stream: The model that reads, and what.
        folder: Where the cache is, or is to be.
        tokens: How many activations.
        shard_rows: Activations in one file, the most that a killed writing loses.
        verify: Whether the checksums of what is there already are compared.
        progress: Whether to show a bar; None shows one where stderr is a terminal.
    """
    folder = artifacts.place(folder)
    if tokens < 1 or shard_rows < 1:
        raise EmlabError(f"A cache of {tokens} activations in shards of {shard_rows} cannot be; ask for at least one.")
    cache = _begun(stream, folder)
    for left in folder.glob(f".*{artifacts.PARTIAL}"):
        left.unlink(missing_ok=True)
    _mend(cache, stream, verify)
    bar = tqdm(
        total=tokens,
        initial=min(tokens, len(cache)),
        desc=f"Caching {stream.site}",
        unit=" activations",
        disable=None if progress is None else not progress,
    )
    with bar:
        reader = Reader(stream, cache.shards[-1].after if cache.shards else Position())
        while len(cache) < tokens and not cache.whole:
            wanted = min(shard_rows, tokens - len(cache))
            rows = _block(reader, wanted, stream.about.d_in)
            if len(rows):
                shard = _written(folder, len(cache.shards), rows, reader.place)
                total, norms = cache.sums
                parts = torch.from_numpy(rows).split(list(stream.about.widths), dim=1)
                new = tuple(old + float(p.norm(dim=1).double().sum()) for old, p in zip(norms, parts, strict=True))
                total = total + torch.from_numpy(rows).sum(dim=0, dtype=torch.float64)
                cache = replace(cache, shards=(*cache.shards, shard), sums=(total, new))
            cache = replace(cache, counts=reader.counts, whole=len(rows) < wanted)
            cache._save_index()
            bar.update(len(rows))
    return cache


def _begun(stream: ActivationStream, folder: Path) -> ActivationCache:
    """The cache in `folder` as far as it has come."""
    if (folder / INDEX).exists():
        cache = ActivationCache._of_index(folder, stream.device)
        if cache.stream != stream.identity:
            raise EmlabError(
                f"{folder} is a cache of something else ({cache.about.site} of {', '.join(cache.about.models)} on "
                f"{cache.about.documents}, or other weights or exclusions); give another folder."
            )
        return cache
    # What a killed writing left of its first file.
    empty = not folder.exists() or all(file.name.endswith(artifacts.PARTIAL) for file in folder.glob("*"))
    if not empty or folder.is_file():
        raise EmlabError(f"{folder} is there and is no cache of activations; give another folder.")
    zeros = torch.zeros(stream.about.d_in, dtype=torch.float64), (0.0,) * len(stream.about.widths)
    cache = ActivationCache(folder, stream.about, stream.identity, (), zeros, Counts(), False, stream.device)
    cache._save_index()
    return cache


def _mend(cache: ActivationCache, stream: ActivationStream, verify: bool) -> None:
    """Write the shards again that are missing, and check all."""
    for number, shard in enumerate(cache.shards):
        if not (cache.folder / shard.file).exists():
            start = cache.shards[number - 1].after if number else Position()
            reader = Reader(stream, start)
            rows = _block(reader, shard.rows, stream.about.d_in)
            again = _written(cache.folder, number, rows, reader.place)
            if again.sha256 != shard.sha256:
                raise EmlabError(
                    f"{cache.folder / shard.file} was missing and came out differently when it was written again; "
                    "remove the folder and write the cache anew."
                )
        _check(cache.folder, shard, cache.about.d_in, verify)


def _check(folder: Path, shard: Shard, d_in: int, verify: bool) -> None:
    path, wanted = folder / shard.file, shard.rows * d_in * 4
    mend = "delete the file and write the cache again by the same call, which writes only what is missing"
    if not path.exists():
        raise EmlabError(f"{path} is missing; write the cache again by the same call, which writes only that.")
    if (size := path.stat().st_size) != wanted:
        raise EmlabError(f"{path} has {size} bytes and not {wanted}, so the shard is cut short; {mend}.")
    if verify and artifacts.sha256(path) != shard.sha256:
        raise EmlabError(f"{path} has another checksum than when it was written, so the shard is damaged; {mend}.")


def _block(reader: Reader, n: int, d_in: int) -> Any:
    """The next `n` activations, or as many as there are, as a NumPy array of little-endian float32."""
    out, done = np.empty((n, d_in), np.dtype("<f4")), 0
    for piece in reader.take(n):
        out[done : done + len(piece)] = piece.cpu().numpy()
        done += len(piece)
    return out[:done]


def _written(folder: Path, number: int, rows: Any, after: Position) -> Shard:
    content = memoryview(rows).cast("B")
    file = f"{number:05d}.f32"
    artifacts.write_bytes(folder / file, content)
    return Shard(file, len(rows), hashlib.sha256(content).hexdigest(), after)
