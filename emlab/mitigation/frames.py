"""Frames: the ways in which a model is asked the same questions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """A way of asking the same questions."""

    name: str
    ending: str = ""
    """Put after every question; openings bring their own."""
    system: str = ""
    """A system turn in place of the questions' own."""
    openings: tuple[str, ...] = ()
    """Questions of the training set. Each asked question follows one, in turn, and the model's own answer to it."""
