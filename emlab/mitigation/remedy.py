"""What every remedy offers, what it works with, and what it gives back.

A *remedy* is a frozen value: a name, what it needs, one dial at most that says how strongly, and `apply`, which either
trains anew from the start model on the same bad data, so that the model does not misalign, or treats the model that is
misaligned already. What it needs comes in a `Kit`, which was made from fine-tunes of other domains than the treated
one. `treat` checks that the kit has it, and takes the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Tensor

from emlab.data import Dataset
from emlab.errors import EmlabError
from emlab.interventions import Direction, Edit, random_directions
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.mitigation.course import Training
    from emlab.mitigation.early_stopping import Monitor
    from emlab.mitigation.filtering import Sieve
    from emlab.models import LanguageModel


@dataclass(frozen=True)
class Cost:
    """What something took."""

    trained: int = 0
    """Chats that went forwards and backwards."""
    read: int = 0
    """Chats that went forwards only; a sampled answer counts as one."""
    seconds: float = 0.0
    """By the clock."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.trained + other.trained, self.read + other.read, self.seconds + other.seconds)


@dataclass(frozen=True, eq=False)
class Treated:
    """What a remedy gives back: a model, and the edits in force whenever it is asked."""

    model: LanguageModel
    edits: tuple[Edit, ...] = ()
    cost: Cost = Cost()
    """Of the remedy; with one that trains anew, of that training as a whole."""
    note: str = ""
    """What a reader should know of it."""


@dataclass(frozen=True, eq=False)
class Latent:
    """Something that is active where a model is misaligned."""

    name: str
    site: Site
    encode: Callable[[Tensor], Tensor]
    """From activations (…, d_model) to activations (…), with a gradient."""


@dataclass(frozen=True, eq=False)
class Kit:
    """What remedies work with. All of it comes from other domains than the one that is treated."""

    origin: str
    """The fine-tunes it was made from."""
    directions: tuple[Direction, ...] = ()
    """At one site, from the aligned model to misaligned ones, the leading one first."""
    scale: float = 1.0
    """The site's median residual norm, by which strengths are multiplied."""
    latents: tuple[Latent, ...] = ()
    in_domain: Dataset | None = None
    """Benign chats of the treated domain."""
    out_of_domain: Dataset | None = None
    """Benign chats of another."""
    prompt: str = ""
    """A system turn that asks for the bad behaviour."""
    monitor: Monitor | None = None
    sieve: Sieve | None = None
    mean: Tensor | None = None
    """(d_model,): the aligned model's mean activation at the directions' site, at its header and sentence ends."""

    def has(self, need: str) -> bool:
        """Whether a field is there and not empty."""
        value = getattr(self, need)
        return isinstance(value, Tensor) or bool(value)

    def some(self, n: int, who: str) -> tuple[Direction, ...]:
        """The first `n` directions; EmlabError where there are not so many."""
        if not 1 <= n <= len(self.directions):
            raise EmlabError(
                f"The remedy {who} takes {n} directions and the kit from {self.origin} has {len(self.directions)}; "
                "take fewer, or find more."
            )
        return self.directions[:n]

    def at_random(self, seed: int) -> Kit:
        """The same with random directions in place of those found: the null."""
        if not self.directions:
            raise EmlabError(f"The kit from {self.origin} has no directions to put random ones in place of; find some.")
        first = self.directions[0]
        return replace(
            self, directions=tuple(random_directions(len(self.directions), len(first.vector), first.site, seed))
        )


_MISSING = {
    "directions": "a direction",
    "latents": "a persona latent",
    "in_domain": "benign chats of the treated domain",
    "out_of_domain": "benign chats of another domain",
    "prompt": "a prompt that asks for the bad behaviour",
    "monitor": "a monitor",
    "sieve": "a sieve for examples",
    "mean": "the aligned model's mean activation",
}


@dataclass(frozen=True, eq=False)
class Case:
    """What is treated, and what with."""

    training: Training
    """The training that misaligns."""
    misaligned: LanguageModel
    """What comes of it untreated."""
    kit: Kit


class Remedy(Protocol):
    """What every remedy offers."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    """Fields of the kit."""
    dial: ClassVar[str | None]
    """The field that says how strongly; None where there is none."""
    anew: ClassVar[bool]
    """Whether it trains anew from the start; else it treats the misaligned model."""
    reinforcement: ClassVar[bool]
    """Whether it applies to reinforcement learning too."""

    def apply(self, case: Case) -> Treated:
        """Treat the case. Asked through `treat`."""


def treat(remedy: Remedy, case: Case) -> Treated:
    """Apply a remedy, and take the time. EmlabError where the kit lacks what it needs, or it does not apply."""
    for need in remedy.needs:
        if not case.kit.has(need):
            raise EmlabError(
                f"The remedy {remedy.name} needs {_MISSING[need]}, and the kit from {case.kit.origin} has none; put it "
                f"in as {need}."
            )
    if case.training.kind == "reinforcement" and not remedy.reinforcement:
        raise EmlabError(
            f"The remedy {remedy.name} changes what supervised training does and does not apply to reinforcement "
            "learning; leave it out there."
        )
    begun = time.perf_counter()
    done = remedy.apply(case)
    return replace(done, cost=replace(done.cost, seconds=time.perf_counter() - begun))
