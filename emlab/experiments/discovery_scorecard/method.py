"""What a method of discovery is: it names a direction at a site, from what a researcher has.

A method is a file in `methods`, or in a package of your own (see `emlab.registry`): a function from a `Search` to what
it finds, under the decorator `method`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from emlab.data import Messages, Question
from emlab.discovery import Contrast, Trait, decoder_direction
from emlab.discovery.persona_vectors import Scorer
from emlab.errors import EmlabError
from emlab.evaluation import Judge
from emlab.experiments.persona_features.config import Config as Experiment
from emlab.interventions import Direction
from emlab.models import LanguageModel
from emlab.registry import Registry
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

Need = Literal["tuned", "sae", "documents", "contrasts", "trait", "judge"]
"""What a method may look at besides the model before the fine-tune and the questions: a field of `Search`."""


@dataclass(frozen=True, eq=False)
class Search:
    """What a method is given: one fine-tune at one site."""

    aligned: LanguageModel
    """The model before the fine-tune."""
    tuned: LanguageModel
    """After it."""
    site: Site
    questions: Sequence[Question]
    """The discovery half."""
    sae: SAE
    """Of the base model, at the site."""
    documents: Sequence[Messages]
    """What further SAEs learn from."""
    contrasts: Sequence[Contrast]
    """Misaligned and aligned answers to the same prompts."""
    trait: Trait
    """Contrasting instructions."""
    scorer: Scorer | None
    """Says how much of the trait an answer shows."""
    judge: Judge
    scale: float
    """The site's median residual norm in the aligned model."""
    settings: Experiment
    """Of the run: which positions are read (`shift_positions`), how answers are sampled and directions screened, how
    SAEs are trained, and the seed."""

    @property
    def prompts(self) -> list[Messages]:
        """The questions as chats."""
        return [question.messages for question in self.questions]


@dataclass(frozen=True, eq=False)
class Found:
    """What a method found at a site."""

    direction: Direction
    latent: int | None = None
    """Of the base model's SAE, where it is one of these."""


@dataclass(eq=False)
class Method:
    """A method, what it looks at, and what it finds."""

    find: Callable[[Search], Direction | Sequence[int]]
    needs: tuple[Need, ...]
    finds: Literal["direction", "latents"]
    """Latents of `Search.sae`, ranked from the best on, of which the first one's direction is proven."""
    place: float

    def __call__(self, search: Search) -> Found:
        """What it finds; EmlabError, in a sentence, where that is nothing."""
        if "contrasts" in self.needs and not search.contrasts:
            raise EmlabError("There are no contrasting answers to learn from; name a file of them as contrasts.")
        withheld: dict[str, Any] = {need: None for need in get_args(Need) if need not in self.needs}
        found = self.find(dataclasses.replace(search, **withheld))
        if isinstance(found, Direction) != (self.finds == "direction"):
            raise EmlabError(f"A method said to find {self.finds} found {found!r}; say what it finds to @method.")
        if isinstance(found, Direction):
            return Found(found)
        if not len(found):
            raise EmlabError("It names no latent.")
        return Found(decoder_direction(search.sae, int(found[0]), search.site), int(found[0]))


METHODS: Registry[Method] = Registry("discovery method", "emlab.experiments.discovery_scorecard.methods")
"""By name."""


F = TypeVar("F", bound=Callable[..., Any])


def method(
    name: str, *needs: Need, finds: Literal["direction", "latents"] = "direction", place: float = math.inf
) -> Callable[[F], F]:
    """A decorator: the function is the discovery method `name`.

    Args:
        name: As tables and configs call it.
        needs: What it looks at besides the aligned model and the questions; the rest it does not get to see.
        finds: A `Direction`, or numbers of latents of `Search.sae`, the best first.
        place: Methods stand in tables by this, and then by name; by default after emlab's own.
    """

    def add(find: F) -> F:
        made = Method(find, needs, finds, place)
        functools.update_wrapper(made, find)  # it is named, where two have one name, by the function's place
        METHODS.register(name)(made)
        return find

    return add


def method_names() -> tuple[str, ...]:
    """Of all methods, in the order of tables."""
    return tuple(sorted(METHODS.names(), key=lambda name: (METHODS.get(name).place, name)))
