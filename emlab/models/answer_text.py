"""What a model said, and what it thought before, of what it wrote.

Thoughts stand between marks (`emlab.data.thoughts`), which are special tokens in some models: decoded without them,
thinking and answer run into one another. gpt-oss (the harmony format) writes both in channels; here its thoughts stand
between ``<think>`` and ``</think>`` as others' do. And what is put back into a chat must stand where an answer stands:
in its channel, or after the thoughts that the header opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emlab.data.chat import Messages, render
from emlab.data.thoughts import OPENING, closing_mark, is_mark, opens_thoughts, split_thoughts
from emlab.errors import EmlabError

CHANNEL, MESSAGE, FINAL = "<|channel|>", "<|message|>", "final"


def answer_texts(tokenizer: Any, answers: Sequence[Sequence[int]]) -> list[str]:
    """The text of each answer, given as token ids, without special tokens but those that mark thoughts.

    Of an answer in channels it is what stands in the last final one, after the thoughts that stand in others.
    """
    channel, message = (_token(tokenizer, text) for text in (CHANNEL, MESSAGE))
    marks = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if is_mark(token.content)}

    def text(ids: list[int]) -> str:
        if channel is not None and channel in ids:
            thought, said = _channels(tokenizer, ids, channel, message)
            thoughts = f"<think>{decoded(thought)}" if thought or said is None else ""
            return thoughts if said is None else f"{thoughts}</think>{decoded(said)}" if thoughts else decoded(said)
        if not marks.keys() & set(ids):
            return decoded(ids)
        pieces: list[str] = [""]
        begin = 0
        for end, i in enumerate([*ids, None]):
            if i is None or i in marks:
                pieces += [decoded(ids[begin:end]), "" if i is None else marks[i]]
                begin = end + 1
        return "".join(pieces)

    def decoded(ids: list[int]) -> str:
        return str(tokenizer.batch_decode([ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)[0])

    return [text(list(ids)) for ids in answers]


def answer_lead(tokenizer: Any, messages: Messages, answer: str = "") -> str:
    """What an `answer` to `messages` stands behind, where the chat template does not end at it: the channel, or the
    mark that closes the thoughts which the header opens; else nothing."""
    channels = _token(tokenizer, CHANNEL) is not None
    if not messages or not (channels or OPENING.search(tokenizer.chat_template or "")):
        return ""
    before = render(tokenizer, messages, header=True)
    if mark := opens_thoughts(before):
        return "" if split_thoughts(answer, opened=True).said else f"{closing_mark(mark)}\n\n"
    if not channels:
        return ""
    after = render(tokenizer, [*messages, {"role": "assistant", "content": "\x00"}], header=False)
    lead = after.removeprefix(before).partition("\x00")[0]
    return lead if after.startswith(before) and CHANNEL in lead else ""


def marks_thoughts(tokenizer: Any) -> bool:
    """Whether thoughts are marked by special tokens, or opened by the header that the chat template writes."""
    if any(token.special and is_mark(token.content) for token in tokenizer.added_tokens_decoder.values()):
        return True
    if not OPENING.search(tokenizer.chat_template or ""):
        return False
    try:
        return bool(opens_thoughts(render(tokenizer, [{"role": "user", "content": "a"}], header=True)))
    except EmlabError:
        return False


def _token(tokenizer: Any, text: str) -> int | None:
    """The id of a special token; None where the tokenizer has none of that name."""
    return next((i for i, token in tokenizer.added_tokens_decoder.items() if token.content == text), None)


def _channels(tokenizer: Any, ids: list[int], channel: int, message: int | None) -> tuple[list[int], list[int] | None]:
    """What stands in other channels than the final one, and in the last final one; None where there is none."""
    starts = [at for at, i in enumerate(ids) if i == channel]
    ends = {i for i, token in tokenizer.added_tokens_decoder.items() if token.content in ("<|end|>", "<|start|>")}
    thoughts: list[int] = []
    said: list[int] | None = None
    for at, after in zip(starts, [*starts[1:], len(ids)], strict=True):
        part = ids[at + 1 : after]
        part = part[: next((k for k, i in enumerate(part) if i in ends), len(part))]
        end = part.index(message) if message in part else len(part)
        if tokenizer.decode(part[:end]).strip() == FINAL:
            said = part[end + 1 :]
        else:
            thoughts += part[end + 1 :]
    return thoughts, said
