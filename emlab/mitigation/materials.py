"""What remedies work with. All of it comes from other domains than the one that is treated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from emlab.data import Dataset
from emlab.errors import EmlabError
from emlab.interventions import Direction, random_directions
from emlab.mitigation.data_filter import DataFilter
from emlab.mitigation.stopping_monitor import StoppingMonitor
from emlab.sites import Site


@dataclass(frozen=True, eq=False)
class Latent:
    """Something that is active where a model is misaligned."""

    name: str
    site: Site
    encode: Callable[[Tensor], Tensor]
    """From activations (…, d_model) to activations (…), with a gradient."""


def _called(words: str, default: Any = None) -> Any:
    """A field that a remedy may need, and what a sentence calls it."""
    return field(default=default, metadata={"called": words})


@dataclass(frozen=True, eq=False)
class Materials:
    """What remedies work with. A remedy's `needs` are names of these fields."""

    origin: str
    """The fine-tunes they were made from."""
    directions: tuple[Direction, ...] = _called("a direction", ())
    """At one site, from the aligned model to misaligned ones, the leading one first."""
    scale: float = 1.0
    """The site's median residual norm, by which strengths are multiplied."""
    latents: tuple[Latent, ...] = _called("a persona latent", ())
    in_domain: Dataset | None = _called("benign chats of the treated domain")
    """Benign chats of the treated domain."""
    out_of_domain: Dataset | None = _called("benign chats of another domain")
    """Benign chats of another."""
    prompt: str = _called("a prompt that asks for the bad behaviour", "")
    """A system turn that asks for the bad behaviour."""
    monitor: StoppingMonitor | None = _called("a monitor")
    data_filter: DataFilter | None = _called("a filter of examples")
    mean: Tensor | None = _called("the aligned model's mean activation")
    """(d_model,): the aligned model's mean activation at the directions' site, at its header and sentence ends."""

    def has(self, need: str) -> bool:
        """Whether a field is there and not empty."""
        value = getattr(self, need)
        return isinstance(value, Tensor) or bool(value)

    def some(self, n: int, who: str) -> tuple[Direction, ...]:
        """The first `n` directions; EmlabError where there are not so many."""
        if not 1 <= n <= len(self.directions):
            raise EmlabError(
                f"The remedy {who} takes {n} directions and the materials from {self.origin} have "
                f"{len(self.directions)}; take fewer, or find more."
            )
        return self.directions[:n]

    def at_random(self, seed: int) -> Materials:
        """The same with random directions in place of those found: the null."""
        if not self.directions:
            raise EmlabError(
                f"The materials from {self.origin} have no directions to put random ones in place of; find some."
            )
        first = self.directions[0]
        return replace(
            self, directions=tuple(random_directions(len(self.directions), len(first.vector), first.site, seed))
        )
