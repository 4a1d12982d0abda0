"""Contexts: stretches of text around the tokens on which a latent fires, and what a corpus shows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from emlab import artifacts, records
from emlab.discovery.activity import Activity
from emlab.errors import EmlabError
from emlab.saes.token_rows import Counts


@dataclass(frozen=True)
class Context:
    """A stretch of text around a token, most often around a strong activation."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    """Of the latent on each token; 0 on one that does not count (a first token, a special one, an attention sink)."""
    label: str = ""
    """What is known of the text, such as its planted persona."""
    document: int = 0
    """Which document of the corpus, counted from 0."""

    @property
    def peak(self) -> float:
        """The strongest activation in it."""
        return max(self.activations)

    @property
    def text(self) -> str:
        """The tokens as one text."""
        return "".join(self.tokens)


@dataclass(frozen=True)
class Quantile:
    """Some of the stretches whose peaks lie in one part of a latent's distribution."""

    low: float
    """The part begins at this share of the stretches in which it fires, put in order of their peaks."""
    high: float
    contexts: tuple[Context, ...]


@dataclass(frozen=True)
class LatentContexts:
    """What a corpus shows of one latent. Nothing at all where it never fires."""

    latent: int
    activity: tuple[Activity, ...]
    """In all documents, and then in those of each kind."""
    top: tuple[Context, ...]
    """Around the strongest activations, one of a row, the strongest first."""
    sample: tuple[Context, ...]
    """A uniform sample of the stretches in which it fires, each around its peak, the weakest first."""
    silent: tuple[Context, ...]
    """A uniform sample of stretches in which it does not, in the order in which they were drawn."""

    @property
    def fires(self) -> bool:
        """Whether it is active on any token."""
        return bool(self.top)

    def quantiles(self, parts: int = 5, each: int = 3) -> tuple[Quantile, ...]:
        """The sample in `parts` equal parts, from the weakest to the strongest, with at most `each` of each shown."""
        if parts < 1 or each < 1:
            raise EmlabError(f"{parts} quantiles of {each} contexts show nothing; ask for at least 1 of each.")
        n, found = len(self.sample), []
        for i in range(parts):
            members = self.sample[i * n // parts : (i + 1) * n // parts]
            if members:
                found.append(Quantile(i / parts, (i + 1) / parts, evenly(members, each)))
        return tuple(found)


@dataclass(frozen=True)
class CorpusContexts:
    """What a corpus shows of some latents."""

    documents: str
    """What the corpus is called."""
    counts: Counts
    """What became of its tokens."""
    latents: tuple[LatentContexts, ...]


def evenly(contexts: Sequence[Context], n: int) -> tuple[Context, ...]:
    """At most `n` of the contexts, evenly spaced."""
    if n >= len(contexts):
        return tuple(contexts)
    return tuple(contexts[(2 * i + 1) * len(contexts) // (2 * n)] for i in range(n))


def save_contexts(contexts: Sequence[Context], path: str | Path) -> Path:
    """Write contexts as JSON."""
    return artifacts.write_json(path, list(contexts))


def load_contexts(path: str | Path) -> tuple[Context, ...]:
    """Read what `save_contexts` wrote."""
    return cast(tuple[Context, ...], records.read(path, tuple[Context, ...]))
