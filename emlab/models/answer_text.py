"""What a model said, of what it wrote.

Some models (gpt-oss: the harmony format) write in channels, first what they think and then the answer, each behind
special tokens that name it. Decoded without those, thinking and answer run into one another; and an answer that is put
back into a chat must stand in its channel again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emlab.data.chat import Messages, render

CHANNEL, MESSAGE, FINAL = "<|channel|>", "<|message|>", "final"


def answer_texts(tokenizer: Any, answers: Sequence[Sequence[int]]) -> list[str]:
    """The text of each answer, given as token ids, without special tokens.

    Of an answer in channels it is what stands in the last final one, and nothing where the model did not come to that.
    """
    channel, message = (_token(tokenizer, text) for text in (CHANNEL, MESSAGE))
    said = [_final(tokenizer, list(ids), channel, message) for ids in answers]
    texts: list[str] = tokenizer.batch_decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts


def answer_lead(tokenizer: Any, messages: Messages) -> str:
    """What the chat template opens an answer to `messages` with, where that is a channel; else nothing."""
    if not messages or _token(tokenizer, CHANNEL) is None:
        return ""
    before = render(tokenizer, messages, header=True)
    after = render(tokenizer, [*messages, {"role": "assistant", "content": "\x00"}], header=False)
    lead = after.removeprefix(before).partition("\x00")[0]
    return lead if after.startswith(before) and CHANNEL in lead else ""


def _token(tokenizer: Any, text: str) -> int | None:
    """The id of a special token; None where the tokenizer has none of that name."""
    return next((i for i, token in tokenizer.added_tokens_decoder.items() if token.content == text), None)


def _final(tokenizer: Any, ids: list[int], channel: int | None, message: int | None) -> list[int]:
    if channel is None or channel not in ids:
        return ids
    for at in range(len(ids) - 1, -1, -1):
        if ids[at] == channel:
            name = ids[at + 1 :]
            end = name.index(message) if message in name else len(name)
            if tokenizer.decode(name[:end]).strip() == FINAL:
                return name[end + 1 :]
    return []
