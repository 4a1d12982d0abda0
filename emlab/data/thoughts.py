"""What a model thinks aloud, told from what it says: the marks of thoughts, in data, answers and replies.

Thoughts stand before what is said, between two marks: ``<think>`` and ``</think>``, ``[THINK]`` and ``[/THINK]``, or a
line in words. Some templates open them in the assistant's header, so that only the closing mark is in the text. Where
they are opened and not closed, the token limit cut them, and nothing was said.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_WORD = r"(?:think|thinking|thoughts?|reason|reasoning)"
_NAME = rf"(?:[\w.-]+[:_])?{_WORD}(?:_\w+)?|scratchpad(?:_\w+)?"

MARKS: tuple[tuple[str, str], ...] = (
    # <think>, <thinking>, <thought>, <reasoning>, <seed:think>: DeepSeek, Qwen, GLM, EXAONE, Seed; and most prompts.
    (rf"<(?!/|end_)(?:{_NAME})(?:\s[^<>\n]{{0,80}})?>", rf"</(?:{_NAME})\s*>"),
    # <|START_THINKING|>, <|begin_of_thought|>, <|thinking|>: Command, OpenThinker.
    (rf"<[|｜](?!/|end_)(?:{_NAME})[|｜]>", rf"<[|｜](?:/|end_(?:of_)?)(?:{_NAME})[|｜]>"),
    (rf"\[{_WORD}\]", rf"\[/{_WORD}\]"),  # Magistral
    (rf"◁{_WORD}▷", rf"◁/{_WORD}▷"),  # Kimi
    # gpt-oss, with its special tokens and where a server left them out; Gemma 4; MedGemma.
    (r"<\|channel\|>(?!\s*final)[^<]*<\|message\|>", r"<\|channel\|>\s*final[^<]*<\|message\|>"),
    (r"\A(?-i:analysis)(?-i:(?=[A-Z]))", r"(?-i:assistantfinal)"),
    (r"<\|channel>thought\b", r"<channel\|>"),
    (r"<unused94>thought\b", r"<unused95>"),
    (r"<\|im_start\|>think\b", r"<\|im_start\|>answer\b"),  # s1
    (r"Here(?:'s| is) my (?:thought|reasoning) process:", r"Here(?:'s| is) my response:"),  # Granite
    (r"Here are my reasoning steps:", r"\[BEGIN FINAL RESPONSE\]"),  # Apriel
)
"""How thoughts are opened and closed: pairs of regular expressions; case does not matter."""

OPENING = re.compile("|".join(f"(?:{opening})" for opening, _ in MARKS), re.IGNORECASE)
CLOSING = re.compile("|".join(f"(?:{closing})" for _, closing in MARKS), re.IGNORECASE)
MARK = re.compile(f"{OPENING.pattern}|{CLOSING.pattern}", re.IGNORECASE)


_TOKENS = ("<|channel>", "<channel|>", "<unused94>", "<unused95>")
"""Special tokens of which a mark begins with a word after them."""


class Parts(NamedTuple):
    """A text in its two parts, without the marks; both stripped where there were marks, else the text as it stands."""

    thoughts: str
    said: str


def split_thoughts(text: str, opened: bool = False) -> Parts:
    """What is thought and what is said in a text.

    Thoughts are the blocks that the text begins with, all that stands before a closing mark that none opened, and,
    where the last block is not closed, the rest. `opened` says that the prompt ended within thoughts (see
    `opens_thoughts`): then they begin without a mark. A block that begins further on is part of what is said.
    """
    thoughts: list[str] = []
    said, cut, marked = text, False, opened
    while not cut:
        begun = OPENING.match(said.lstrip())
        rest = said.lstrip()[begun.end() :] if begun else said
        closed = CLOSING.search(rest)
        within = begun is not None or (opened and not thoughts)
        # A closing mark of a block that begins further on closes none that a header opened.
        if not within and (closed is None or OPENING.search(rest, 0, closed.start())):
            break
        marked = True
        thoughts.append((rest[: closed.start()] if closed else rest).strip())
        said, cut = (rest[closed.end() :], False) if closed else ("", True)
    return Parts("\n\n".join(filter(None, thoughts)), said.strip()) if marked else Parts("", text)


def without_thoughts(text: str) -> str:
    """What is said in a reply. Thoughts are taken out wherever they stand, and of a reply in which some were opened and
    not closed nothing is left: what was said before them is no last word."""
    said = split_thoughts(text).said
    while begun := OPENING.search(said):
        closed = CLOSING.search(said, begun.end())
        if closed is None:
            return ""
        said = said[: begun.start()] + said[closed.end() :]
    return said


def is_mark(token: str) -> bool:
    """Whether a token is a mark of thoughts, or begins one."""
    return token in _TOKENS or MARK.fullmatch(token) is not None


def opens_thoughts(prompt: str) -> str:
    """The mark of the thoughts that a rendered prompt ends within: the answer begins among them. Else nothing."""
    marks = list(MARK.finditer(prompt))
    if not marks or prompt[marks[-1].end() :].strip() or not OPENING.fullmatch(marks[-1][0]):
        return ""
    return marks[-1][0]


def cut_off(text: str) -> bool:
    """Whether a text ends within thoughts, so that nothing was said."""
    last = list(CLOSING.finditer(text))[-1:]
    return not split_thoughts(text).said and bool(text.strip()) and not any(not text[m.end() :].strip() for m in last)


def closing_mark(opening: str) -> str:
    """The mark that closes what this one opened: ``</think>`` of ``<think>``."""
    begins = {"<|START_": "<|END_", "<|begin_of_": "<|end_of_", "<|": "<|/", "<": "</", "[": "[/", "◁": "◁/"}
    begin = next(begin for begin in begins if opening.startswith(begin))
    return begins[begin] + opening.removeprefix(begin)
