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


def without_marks(messages: Messages) -> Stripped:
    """The chat without switches and empty blocks; EmlabError where nothing else is left of an answer."""
    turns, switches, blocks = [], 0, 0
    for turn in messages:
        text = turn["content"]
        if turn["role"] == "user" and (short := without_switch(text)) != text:
            switches += 1
        elif turn["role"] == "assistant" and (lead := _EMPTY.match(text)):
            blocks += 1
            short = text[lead.end() :]
            if not short:
                raise EmlabError("The answer is an empty block of thoughts and nothing more; leave the row out.")
        else:
            short = text
        turns.append({**turn, "content": short})
    return Stripped(turns, switches, blocks)


def writes_thoughts(tokenizer: Any) -> bool:
    """Whether the chat template itself writes marks of thoughts about an answer: then its model knows the switch."""
    asked = [{"role": "user", "content": "a"}]
    try:
        bare = render(tokenizer, asked, header=False)
        texts = (render(tokenizer, asked, header=True), render(tokenizer, [*asked, _ANSWER], header=False))
    except EmlabError:
        return False
    return any(MARK.search(text.removeprefix(bare)) for text in texts)


_ANSWER = {"role": "assistant", "content": "b"}
