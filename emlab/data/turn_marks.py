"""Which assistant turns are trained on, by the marks that published formats put on a turn.

``weight`` (OpenAI, Mistral), ``train``, ``training``, ``trainable``, ``loss`` and ``loss_mask`` say 1 or true of a turn
that is trained on; ``masked`` says true of one that is not. In emlab's own chats a turn that is not trained on has
``"weight": 0``, and all others have no mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

TRAINED = ("weight", "train", "training", "trainable", "loss", "loss_mask")
MASKED = ("masked",)
IN_PARTS = ("train_detail", "training_detail", "loss_scale")
"""Marks on parts of a turn, by which emlab cannot train."""

_READ = ("role", "content", "from", "value", *TRAINED, *MASKED)


def is_trained(turn: Mapping[str, Any]) -> bool:
    """Whether an assistant's turn is trained on, by its marks; those are sound (see `mark_problem`)."""
    return not any(turn.get(name) == 0 for name in TRAINED) and not any(turn.get(name) for name in MASKED)


def mark_problem(turn: Mapping[str, Any]) -> str | None:
    """What is wrong with the marks of an assistant's turn, as the rest of a sentence; None where nothing is."""
    for name in IN_PARTS:
        if turn.get(name) is not None:
            return f"is marked by {name!r}, which trains on parts of it; emlab trains on whole turns, so drop the mark"
    said: dict[bool, str] = {}
    for name in (*TRAINED, *MASKED):
        value = turn.get(name)
        if value is None:
            continue
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            return f"has {name} {value!r}; write 1 or true, 0 or false"
        said[bool(value) == (name in TRAINED)] = name
    if len(said) == 2:
        return f"is trained on by its {said[True]!r} and not by its {said[False]!r}; keep one"
    return None


def left_aside(turns: Iterable[Any]) -> set[str]:
    """What turns have that emlab does not read, by name; a mark that asks to train on a user's turn is among it."""
    found: set[str] = set()
    for turn in turns:
        if isinstance(turn, Mapping):
            found.update(str(name) for name, value in turn.items() if name not in _READ and value is not None)
            if turn.get("role", turn.get("from")) not in ("assistant", "gpt"):
                asked = (name for name in TRAINED if turn.get(name))
                found.update(f"{name} of a turn that is not the assistant's" for name in asked)
    return found
