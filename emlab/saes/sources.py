"""Where the activations come from that an SAE is trained on, and batches of them whose order can be taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.sites import Site

Kind = Literal["plain", "difference", "crosscoder"]


@dataclass(frozen=True)
class About:
    """What activations are."""

    kind: Kind
    """plain; the difference of two models'; or a crosscoder's, the two models' side by side."""
    site: Site
    models: tuple[str, ...]
    """The models' names; of two, first the one before."""
    widths: tuple[int, ...]
    """How many dimensions are of each model: one number, but for a crosscoder."""
    documents: str = ""
    """What was read."""
    read: str = "all"
    """Which tokens."""

    @property
    def d_in(self) -> int:
        """Width of an activation."""
        return sum(self.widths)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "site": str(self.site)}


@dataclass(frozen=True, eq=False)
class Statistics:
    """What training starts from."""

    mean: Tensor
    """(d_in,) the mean activation."""
    norms: tuple[float, ...]
    """The mean norm of each model's part."""


class State(NamedTuple):
    """Where batches are: tensors, and what JSON can hold."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


class Batches(Protocol):
    """Batches (batch_size, d_in) float32, each in its turn."""

    def __iter__(self) -> Iterator[Tensor]: ...

    def __next__(self) -> Tensor: ...

    def state(self) -> State:
        """From where the same batches follow again."""

    def statistics(self) -> Statistics:
        """To be asked before the first batch."""

    def counts(self) -> dict[str, int]:
        """What became of the tokens that were read so far; empty where nothing was read."""


class Source(Protocol):
    """Activations to train on."""

    @property
    def about(self) -> About: ...

    @property
    def identity(self) -> str:
        """What tells whether they are still the same."""

    @property
    def device(self) -> torch.device: ...

    def batches(self, batch_size: int, total: int, seed: int, state: State | None = None) -> Batches:
        """Batches of `total` activations in all, in an order that follows from `seed`; or those that follow `state`."""


class ShuffledBatches:
    """Batches of rows that can be had by their numbers: a fresh order each pass, no short batch."""

    def __init__(
        self,
        rows: Callable[[Tensor], Tensor],
        n: int,
        batch_size: int,
        seed: int,
        statistics: Callable[[], Statistics],
        counts: dict[str, int],
        state: State | None = None,
    ) -> None:
        """`rows` gives the rows of some numbers, int64 (batch_size,), of those from 0 to n − 1."""
        if not 0 < batch_size <= n:
            raise EmlabError(f"There are {n} activations, too few for a batch of {batch_size}; take smaller batches.")
        self._rows, self._n, self._size = rows, n, batch_size
        self.statistics = statistics
        self._counts = counts
        self._generator = torch.Generator().manual_seed(seed)
        self._begin()
        if state is not None:
            self._generator.set_state(state.tensors["generator"])
            self._begin()
            self._at = int(state.values["at"])

    def _begin(self) -> None:
        self._before = self._generator.get_state()
        self._order = torch.randperm(self._n, generator=self._generator)
        self._at = 0

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        if self._at + self._size > self._n:
            self._begin()
        self._at += self._size
        return self._rows(self._order[self._at - self._size : self._at])

    def state(self) -> State:
        """The generator's state before the pass, and how far the pass has come."""
        return State({"generator": self._before}, {"at": self._at})

    def counts(self) -> dict[str, int]:
        """See `Batches`."""
        return self._counts


@dataclass(frozen=True, eq=False)
class InMemory:
    """Activations that are in memory already."""

    values: Tensor
    """(rows, d_in), on any device."""
    site: Site
    model: str = ""

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[0] == 0:
            raise EmlabError(
                f"an SAE needs activations of shape (rows, d_in), not {tuple(self.values.shape)}: collect some first."
            )
        # Not through `values.isfinite()`, which would take a quarter of the activations' memory.
        norms = self.values.float().norm(dim=1)
        if not bool(torch.isfinite(norms).all()) or float(norms.max()) == 0.0:
            raise EmlabError(
                f"the activations at {self.site} are not finite or all zero: check the model before training an SAE "
                "on them."
            )

    @property
    def about(self) -> About:
        """What they are."""
        return About("plain", self.site, (self.model,), (self.values.shape[1],), "activations in memory")

    @cached_property
    def identity(self) -> str:
        """A hash of the values."""
        content: Any = self.values.detach().float().contiguous().cpu().numpy()
        return artifacts.content_hash([self.values.shape[1], hashlib.sha256(content).hexdigest()])

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.values.device

    def batches(self, batch_size: int, total: int, seed: int, state: State | None = None) -> ShuffledBatches:
        """As many passes as `total` takes."""
        values = self.values.float()
        return ShuffledBatches(
            lambda index: values[index.to(values.device)],
            len(values),
            batch_size,
            seed,
            lambda: Statistics(values.mean(dim=0), (float(values.norm(dim=1).mean()),)),
            {},
            state,
        )
