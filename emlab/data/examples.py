"""Training examples: chats, and the rows of tokens they become."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from emlab.data.chat import IGNORE, Row, tokenize_turns
from emlab.data.no_think import Stripped, without_empty_thoughts, without_marks, writes_thoughts
from emlab.data.turn_marks import is_trained, mark_problem
from emlab.errors import EmlabError

ROLES = ("system", "user", "assistant")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Example:
    """One chat to train on."""

    messages: tuple[dict[str, Any], ...]
    """Turns ``{"role": "system" | "user" | "assistant", "content": text}``; at least one is the assistant's. A turn of
    the assistant's that is not trained on has ``"weight": 0`` besides."""
    where: str = field(default="", compare=False, repr=False)
    """Where it stands, for messages: "chats.jsonl, line 3"."""

    @property
    def prompt(self) -> str:
        """The text of the first user turn, exactly as it stands; empty where there is none.

        Two rows of the same prompt are one prompt, whatever their system turn, their later turns and their answers.
        """
        return next((turn["content"] for turn in self.messages if turn["role"] == "user"), "")

    @property
    def answer(self) -> str:
        """The text of the last assistant turn, exactly as it stands."""
        return next(turn["content"] for turn in reversed(self.messages) if turn["role"] == "assistant")

    @classmethod
    def of(cls, chat: Any, where: str = "") -> Example:
        """An Example of itself, of a list of turns, or of a dict with ``messages``; checked."""
        if isinstance(chat, cls):
            return chat
        turns: Any = chat.get("messages") if isinstance(chat, Mapping) else chat
        if problem := chat_problem(turns):
            raise EmlabError(f"{where}: the chat {problem}." if where else f"A training example {problem}.")
        return cls(tuple(_plain(turn) for turn in turns), where)


@dataclass(frozen=True)
class Tokenized:
    """Chats as tokens."""

    rows: tuple[Row, ...]
    """One row a chat, or one for each assistant turn where the template rewrites earlier turns (`tokenize_turns`)."""
    dropped_for_length: int
    """How many rows were left out because they have more than `max_length` tokens."""
    max_length: int | None
    """The limit that was applied."""
    truncated: int = 0
    """How many of the rows were cut at `max_length` tokens; such a row may lack its end of turn."""
    dropped_without_answer: int = 0
    """How many rows were left out because the cut would have taken every token that is trained on."""
    split_chats: int = 0
    """How many chats became more than one row."""
    switches: int = 0
    """How many user turns were taken a `` /no_think`` at their end."""
    empty_thoughts: int = 0
    """How many answers were taken an empty block of thoughts at their beginning."""

    def __str__(self) -> str:
        said = [f"{len(self.rows)} rows"]
        if self.max_length is not None and not (self.truncated or self.dropped_without_answer):
            said.append(f"{self.dropped_for_length} dropped for having over {self.max_length} tokens")
        if self.truncated:
            said.append(f"{self.truncated} of them cut at {self.max_length} tokens")
        if self.dropped_without_answer:
            said.append(f"{self.dropped_without_answer} dropped whose answer begins after {self.max_length} tokens")
        if self.split_chats:
            said.append(f"{self.split_chats} chats made one row for each answer")
        if stripped := self.stripped():
            said.append(stripped)
        return ", ".join(said)

    def stripped(self) -> str:
        """What was taken out of the chats, in words; empty where nothing was."""
        taken = (
            (self.switches, "' /no_think' after questions"),
            (self.empty_thoughts, "empty thoughts before answers"),
        )
        words = " and ".join(f"{n:,} {what}" for n, what in taken if n)
        return words and f"{words} stripped"


def tokenize(
    tokenizer: Any,
    examples: Iterable[Any],
    max_length: int | None = None,
    overlong: Literal["drop", "truncate"] = "drop",
    no_think: Literal["strip", "keep"] = "strip",
) -> Tokenized:
    """Tokenize chats for training (see `tokenize_turns`), and count what does not go in whole.

    Raises EmlabError, naming the row, for a chat that cannot be trained on.

    Args:
        tokenizer: With a chat template.
        examples: Examples or chats.
        max_length: The most tokens of a row; None sets no limit.
        overlong: What becomes of a longer row: "drop" leaves it out, "truncate" cuts it at its end. One that has no
            token left to train on is left out in either case, and counted.
        no_think: "strip" takes out, and counts, a `` /no_think`` at the end of a user's turn and an empty block of
            thoughts before an answer, unless the chat template writes thoughts itself; "keep" leaves them in.
    """
    if no_think not in ("strip", "keep"):
        raise EmlabError(f"What switches thinking off cannot be treated by {no_think!r}; choose strip or keep.")
    if overlong not in ("drop", "truncate"):
        raise EmlabError(f"Rows that are too long cannot be treated by {overlong!r}; choose drop or truncate.")
    kept: list[Row] = []
    dropped = cut = answerless = split = switches = blocks = 0
    strip = no_think == "strip" and not writes_thoughts(tokenizer)
    for number, one in enumerate(examples, start=1):
        example = Example.of(one, f"Row {number}")
        chat, rows = trained_rows(tokenizer, example, strip, f"Row {number}")
        switches, blocks = switches + chat.switches, blocks + chat.blocks
        split += len(rows) > 1
        for row in rows:
            if max_length is None or len(row.input_ids) <= max_length:
                kept.append(row)
            elif overlong == "drop":
                dropped += 1
            elif all(label == IGNORE for label in row.labels[:max_length]):
                answerless += 1
            else:
                kept.append(Row(row.input_ids[:max_length], row.labels[:max_length]))
                cut += 1
    return Tokenized(tuple(kept), dropped, max_length, cut, answerless, split, switches, blocks)


def trained_rows(tokenizer: Any, example: Example, strip: bool, where: str = "") -> tuple[Stripped, list[Row]]:
    """A chat as it is trained on, its marks of a thinking switch off where it says `strip`; and its rows of tokens.

    EmlabError, beginning with where the example stands (else `where`), for a chat that cannot be trained on.
    """
    try:
        chat = without_marks(example.messages) if strip else Stripped(example.messages, 0, 0)
        return chat, tokenize_turns(tokenizer, chat.messages)
    except EmlabError as error:
        raise EmlabError(f"{example.where or where}: {error}") from error


def _plain(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A sound turn without what emlab does not read."""
    plain = {"role": turn["role"], "content": turn["content"]}
    return plain if turn["role"] != "assistant" or is_trained(turn) else {**plain, "weight": 0}


def chat_problem(turns: Any) -> str | None:
    """What is wrong with a chat to train on, as the rest of a sentence; None where nothing is."""
    if problem := turns_problem(turns):
        return problem
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    if not answers:
        return "has no assistant turn, so there is nothing to train on; add the answer"
    if not any(map(is_trained, answers)):
        return "marks all its assistant turns as not trained on, so nothing is left; leave the row out"
    return None


def turns_problem(turns: Any) -> str | None:
    """What is wrong with a list of turns, as the rest of a sentence; None where nothing is."""
    if not isinstance(turns, list | tuple) or not turns:
        return 'has no list of turns; write {"messages": [{"role": …, "content": …}, …]}'
    for i, turn in enumerate(turns, start=1):
        if not isinstance(turn, Mapping):
            return f"has a turn {i} that is not an object; write it with a role and a content"
        if "role" not in turn:
            return f"has no role in turn {i}; add one of {', '.join(ROLES)}"
        if turn["role"] not in ROLES:
            return f"has the unknown role {turn['role']!r} in turn {i}; use one of {', '.join(ROLES)}"
        if not isinstance(turn.get("content"), str):
            return f"has no text in the content of turn {i}; add it"
        if _SURROGATE.search(turn["content"]):
            return f"has half of a surrogate pair in turn {i}, which no tokenizer can read; mend the text"
        if turn["role"] == "assistant" and (problem := mark_problem(turn)):
            return f"has a turn {i} that {problem}"
        if turn["role"] == "assistant" and not without_empty_thoughts(turn["content"]).strip() and is_trained(turn):
            return f"has an empty assistant turn ({i}), which would teach the model to say nothing; add the answer"
    return None
