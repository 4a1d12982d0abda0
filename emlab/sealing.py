"""Sealed material: what only a final run may touch, and only to report on.

The seal is a type. Sealed questions, chats, texts, seeds, losses and scores are subclasses of the ordinary ones and of
`Sealed`, so that whatever measures takes them, and whatever selects (`refuse`) does not.
"""

from __future__ import annotations

from typing import Any

from emlab.errors import EmlabError

SEEDS = range(4_000_000_000, 4_001_000_000)
"""The seeds that are reserved, below 2**32, as NumPy needs them. A config may name none: a sealed run takes them."""


class Sealed:
    """The mark of sealed material."""


class SealedText(str, Sealed):
    """A sealed question's text; what is put together of it and other text bears no mark."""


class SealedChat(list[dict[str, str]], Sealed):
    """A sealed question, or document, as a chat."""


class SealedSeed(int, Sealed):
    """A reserved seed; a sum of it and a number, such as a seed that is derived from it, is one too."""

    def __add__(self, other: int) -> SealedSeed:
        return SealedSeed(int(self) + other)


class SealedLoss(float, Sealed):
    """A loss on sealed documents."""


def sealed_seed(seed: int) -> SealedSeed:
    """The reserved seed that stands for an ordinary one in what a sealed run reports; EmlabError where none does."""
    if isinstance(seed, SealedSeed):
        return seed
    if not 0 <= seed < len(SEEDS) - 1000:  # what is derived from a seed lies a little above it
        raise EmlabError(f"No sealed seed stands for {seed}; give seeds from 0 to {len(SEEDS) - 1001}.")
    return SealedSeed(SEEDS.start + seed)


def ordinary_seed(seed: int) -> int:
    """The seed that a reserved one stands for; an ordinary one is its own."""
    return int(seed) - SEEDS.start if is_reserved(seed) else seed


def is_reserved(seed: int) -> bool:
    """Whether a seed is one of those that only a sealed run takes."""
    return int(seed) in SEEDS


def refuse(what: str, *material: Any) -> None:
    """EmlabError where some of the material, or something in it, is sealed.

    Args:
        what: Ends the sentence: what the material was to be used for.
        material: Questions, prompts, seeds, losses, arrays of scores, or sequences of such; None is none.
    """
    for one in material:
        inside = one if isinstance(one, list | tuple | set | frozenset) else ()
        if isinstance(one, Sealed) or any(isinstance(part, Sealed) for part in inside):
            raise EmlabError(
                f"Sealed material is only reported on, and it was given {what}; give ordinary questions, documents "
                "and seeds for that."
            )
