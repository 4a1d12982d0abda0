"""Names for latents, given by a language model that reads excerpts in which each fires.

The documents are divided in two at random: a name is made from those of one half, and tested (`name_scores`) on the
other, so that no name is tested on what it was made from.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emlab.data.thoughts import split_thoughts
from emlab.discovery.contexts import Context, LatentContexts, evenly
from emlab.discovery.naming_prompts import naming
from emlab.errors import EmlabError
from emlab.evaluation.judges.replies import unread
from emlab.models import Completer, Completion, Request
from emlab.models.completion import complete

LONGEST = 200
"""Characters of a name; a reply that has more in its first line is no phrase."""


@dataclass(frozen=True)
class Namer:
    """A language model that names latents, and tests the names."""

    by: Completer
    """An `Endpoint`, or a `LocalCompleter`."""
    store: Path | None = None
    """A file of finished replies: what is in it is not asked again."""
    excerpts: int = 12
    """A name is made from at most so many."""
    tests: int = 20
    """A name is tested on at most so many excerpts for which YES is right, and as many for which NO is; twice."""
    controls: int = 2
    """And on as many of so many other latents."""
    max_tokens: int = 64
    """Tokens of a reply; a model that thinks aloud needs more."""

    def __post_init__(self) -> None:
        if min(self.excerpts, self.tests, self.controls, self.max_tokens) < 1:
            raise EmlabError(
                f"A namer cannot do with {self.excerpts} excerpts, {self.tests} tests, {self.controls} controls and "
                f"replies of {self.max_tokens} tokens; give at least 1 of each."
            )

    def ask(self, texts: Sequence[str]) -> list[Completion]:
        """A reply to each text, in order; one that failed says why."""
        asked = [Request([{"role": "user", "content": text}], self.max_tokens) for text in texts]
        return complete(self.by, asked, self.store)


@dataclass(frozen=True)
class LatentName:
    """What a language model calls a latent, or why it has no name."""

    latent: int
    name: str
    """Empty where there is none."""
    failure: str = ""
    """Why there is none."""


def name_latents(found: Sequence[LatentContexts], namer: Namer, seed: int = 0) -> tuple[LatentName, ...]:
    """A name for each latent, from excerpts of the naming half of the documents.

    Half of the excerpts are the strongest, and half go over all quantiles. A latent without excerpts there, a call that
    failed, and a reply that is no phrase leave the latent without a name, and say why.
    """
    shown = [naming_contexts(one, namer.excerpts, seed) for one in found]
    replies = iter(namer.ask([naming(contexts) for contexts in shown if contexts]))
    return tuple(
        _named(one.latent, next(replies)) if contexts else LatentName(one.latent, "", _why_none(one))
        for one, contexts in zip(found, shown, strict=True)
    )


def naming_contexts(found: LatentContexts, examples: int, seed: int) -> tuple[Context, ...]:
    """The excerpts that a name is made from, the strongest first."""
    top, sample = ([c for c in some if for_naming(c, seed)] for some in (found.top, found.sample))
    strongest = top[: max(examples // 2, examples - len(sample))]
    texts = {context.text for context in strongest}
    rest = [context for context in sample if context.text not in texts]
    chosen = [*strongest, *evenly(rest, examples - len(strongest))]
    return tuple(sorted(chosen, key=lambda context: -context.peak))


def for_naming(context: Context, seed: int) -> bool:
    """Whether the context's document is of the half that names are made from; the other half tests them."""
    return random.Random(f"{seed}/{context.document}").random() < 0.5


def _why_none(found: LatentContexts) -> str:
    return "no excerpt in the naming half of the documents" if found.fires else "it never fires on these documents"


def _named(latent: int, reply: Completion) -> LatentName:
    if why := unread(reply):
        return LatentName(latent, "", why)
    name = phrase(reply.text)
    said = f"the reply is no phrase: {reply.text[:LONGEST]}" if reply.text.strip() else "an empty reply"
    return LatentName(latent, name, "" if name else said)


def phrase(text: str) -> str:
    """The phrase that a reply gives: its first line, without quotes, Markdown or a full stop; empty where none is."""
    lines = [line.strip(" \t*_`\"'“”#>-.") for line in split_thoughts(text).said.splitlines()]
    first = next((line for line in lines if line), "").strip()
    return first if len(first) <= LONGEST else ""
