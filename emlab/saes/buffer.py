"""A shuffling buffer: batches from a stream of activations that is never all in memory.

The buffer holds a stated number of activations. A batch is drawn from it at random, and the places it leaves are filled
from the stream at once; after half of the buffer has been served the order is drawn anew, so that a batch mixes what
came in lately with what has been there for long. Every activation of the stream is served once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.records import restored
from emlab.saes.sources import About, State, Statistics
from emlab.saes.stream import ActivationStream, Position, Reader


@dataclass(frozen=True, eq=False)
class BufferedStream:
    """A stream, shuffled through a buffer."""

    stream: ActivationStream
    size: int = 262_144
    """Activations that the buffer holds: size · d_in · 4 bytes."""

    @property
    def about(self) -> About:
        """See `ActivationStream.about`."""
        return self.stream.about

    @property
    def identity(self) -> str:
        """The stream's, and the size, on which the order depends."""
        return artifacts.content_hash([self.stream.identity, self.size])

    @property
    def device(self) -> torch.device:
        """Where the model is, and the buffer."""
        return self.stream.device

    def batches(self, batch_size: int, total: int, seed: int, state: State | None = None) -> ShuffleBuffer:
        """Fills the buffer. The documents are read again where they give fewer than `total` activations."""
        return ShuffleBuffer(self.stream, self.size, batch_size, total, seed, state)


class ShuffleBuffer:
    """Batches of `total` activations of a stream, a multiple of the batch size."""

    def __init__(
        self,
        stream: ActivationStream,
        size: int,
        batch_size: int,
        total: int,
        seed: int,
        state: State | None = None,
    ) -> None:
        """EmlabError where the buffer is smaller than a batch, and where the stream gives too few activations."""
        if size < batch_size:
            raise EmlabError(f"A buffer of {size} activations holds no batch of {batch_size}; make it larger.")
        if total % batch_size:
            raise EmlabError(f"{total} activations are no whole number of batches of {batch_size}; round them.")
        self._stream, self._batch, self._total = stream, batch_size, total
        self._size = min(size, total)
        self._generator = torch.Generator().manual_seed(seed)
        self._pulled = self._at = 0
        self._draining = False
        if state is None:
            self._data = torch.empty(self._size, stream.about.d_in, device=stream.device)
            self._reader = Reader(stream, repeat=True)
            self._fill(torch.arange(self._size))
            self._shuffle(torch.arange(self._size))
            self._draining = self._pulled == total
        else:
            self._restore(state)

    def statistics(self) -> Statistics:
        """Of what the buffer holds at first."""
        parts = self._data.split(list(self._stream.about.widths), dim=1)
        return Statistics(self._data.mean(dim=0), tuple(float(part.norm(dim=1).mean()) for part in parts))

    def counts(self) -> dict[str, int]:
        """What became of the tokens read so far, those of the last batch among them."""
        return asdict(self._reader.counts)

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        if self._at + self._batch > len(self._order) or (
            not self._draining and self._at + self._batch > max(self._size // 2, self._batch)
        ):
            if self._draining:
                raise StopIteration
            self._shuffle(torch.arange(self._size))
        slots = self._order[self._at : self._at + self._batch]
        self._at += self._batch
        batch = self._data[slots.to(self._data.device)]
        if not self._draining:
            fresh = min(self._batch, self._total - self._pulled)
            self._fill(slots[:fresh])
            if self._pulled == self._total:
                spent = torch.zeros(self._size, dtype=torch.bool)
                spent[slots[fresh:]] = True
                self._shuffle((~spent).nonzero()[:, 0])
                self._draining = True
        return batch

    def state(self) -> State:
        """The buffer itself, its order, and the place in the stream."""
        return State(
            {"buffer": self._data, "order": self._order, "generator": self._generator.get_state()},
            {
                "at": self._at,
                "pulled": self._pulled,
                "draining": self._draining,
                "place": asdict(self._reader.place),
            },
        )

    def _restore(self, state: State) -> None:
        # Taken over and not copied: there is no room for two.
        self._data = state.tensors["buffer"].to(self._stream.device)
        self._order = state.tensors["order"].clone()
        self._generator.set_state(state.tensors["generator"])
        self._at, self._pulled = int(state.values["at"]), int(state.values["pulled"])
        self._draining = bool(state.values["draining"])
        self._reader = Reader(self._stream, restored(state.values["place"], Position), repeat=True)

    def _shuffle(self, slots: Tensor) -> None:
        self._order = slots[torch.randperm(len(slots), generator=self._generator)]
        self._at = 0

    def _fill(self, slots: Tensor) -> None:
        """Put the stream's next activations into the buffer's places `slots`."""
        done = 0
        for rows in self._reader.take(len(slots)):
            self._data[slots[done : done + len(rows)].to(self._data.device)] = rows
            done += len(rows)
        self._pulled += done
