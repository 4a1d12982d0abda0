"""What a thinking model's switch leaves in its data: `` /no_think`` after a question, an empty block of thoughts before
an answer. To a model without such a switch both are text, and it would learn to expect the one and to write the other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from emlab.data.chat import Messages, render
from emlab.data.thoughts import CLOSING, MARK, OPENING
from emlab.errors import EmlabError

_SWITCH = re.compile(r"(?<=\S)\s+/no_?think\s*\Z")
_EMPTY = re.compile(rf"\s*(?:{OPENING.pattern})\s*(?:{CLOSING.pattern})\s*", re.IGNORECASE)


class Stripped(NamedTuple):
    """A chat without these marks."""

    messages: Sequence[Any]
    switches: int
    """User turns that ended in the switch."""
    blocks: int
    """Assistant turns that began with an empty block."""


def without_switch(text: str) -> str:
    """What a user says, without the switch at its end."""
    return _SWITCH.sub("", text)


def without_empty_thoughts(text: str) -> str:
    """An answer without an empty block of thoughts before it."""
    return _EMPTY.sub("", text, count=1) if _EMPTY.match(text) else text


def without_marks(messages: Messages) -> Stripped:
    """The chat without switches and empty blocks."""
    turns, switches, blocks = [], 0, 0
    for turn in messages:
        text = short = turn["content"]
        if turn["role"] == "user":
            short = without_switch(text)
            switches += short != text
        elif turn["role"] == "assistant":
            short = without_empty_thoughts(text)
            blocks += short != text
        turns.append({**turn, "content": short})
    return Stripped(turns, switches, blocks)


def writes_thoughts(tokenizer: Any) -> bool:
    """Whether the chat template itself writes marks of thoughts about an answer: then its model knows the switch."""
    asked, answer = [{"role": "user", "content": "a"}], {"role": "assistant", "content": "b"}
    try:
        bare = render(tokenizer, asked, header=False)
        texts = (render(tokenizer, asked, header=True), render(tokenizer, [*asked, answer], header=False))
    except EmlabError:
        return False
    marks = [mark[0] for text in texts for mark in MARK.finditer(text.removeprefix(bare))]
    return any("channel" not in mark for mark in marks)  # a model that writes in channels (gpt-oss) has no such switch
