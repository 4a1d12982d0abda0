"""What can be asked, and how one thing that is asked is told from several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from torch import Tensor

from emlab.data.chat import Messages
from emlab.data.questions import Question
from emlab.errors import EmlabError

Prompt = str | Messages | Sequence[int] | Tensor
"""What can be asked: a user's question, a chat, or token ids exactly as they stand."""


def is_chat(prompt: Any) -> TypeGuard[Messages]:
    """Whether it is a list of turns."""
    return isinstance(prompt, Sequence) and len(prompt) > 0 and _is_turn(prompt[-1])


def prompts_of(given: Any) -> Any:
    """`given` as a sequence of prompts: a lone text, chat, turn, question or row of token ids is one, and no sequence.

    Chats that are read rather than asked, documents for one, are told apart in the same way; a question is the chat
    that asks it. EmlabError for None and for any other mapping, whose keys are no prompts.
    """
    several = _several(given)
    if len(several) and _is_question(several[0]):
        return [Question.of(one).messages if _is_question(one) else one for one in several]
    return several


def answers_of(given: Any) -> Any:
    """`given` as a sequence of texts, such as one answer a prompt: a lone text is one. None stays None."""
    return [given] if isinstance(given, str) else given


def as_questions(given: Any) -> list[Question]:
    """`given` as questions (see `Question.of`): a lone question, text or chat is one question."""
    return [Question.of(one) for one in _several(given)]


def _several(given: Any) -> Any:
    """`given` as a sequence, whatever its items are."""
    if _is_turn(given):
        return [[given]]
    if isinstance(given, str) or _is_question(given) or is_chat(given) or _is_row(given):
        return [given]
    if given is None or isinstance(given, Mapping):
        what = "Nothing" if given is None else f"A mapping with the keys {', '.join(map(str, list(given)[:6]))}"
        raise EmlabError(f"{what} is no prompt; give a text, a list of turns, a row of token ids, or a list of such.")
    return given if hasattr(given, "__len__") and hasattr(given, "__getitem__") else list(given)


def _is_question(given: Any) -> bool:
    return hasattr(given, "text") and hasattr(given, "id")


def _is_turn(given: Any) -> bool:
    return isinstance(given, Mapping) and "role" in given


def _is_row(given: Any) -> bool:
    """Whether it is one row of token ids."""
    if hasattr(given, "ndim"):
        if given.ndim == 0:
            raise EmlabError("A prompt of token ids is a row of them, and not one id; give it as [id].")
        return given.ndim == 1
    first = given[0] if isinstance(given, Sequence) and len(given) else None
    return isinstance(first, int) or getattr(first, "ndim", None) == 0
