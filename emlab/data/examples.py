"""Training examples: chats read from JSONL, and the rows of tokens they become."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab.data.chat import Row, tokenize_chat
from emlab.errors import EmlabError

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Example:
    """One chat to train on."""

    messages: tuple[dict[str, str], ...]
    """Turns ``{"role": "system" | "user" | "assistant", "content": text}``; at least one is the assistant's."""

    @classmethod
    def of(cls, chat: Any) -> Example:
        """An Example of itself, of a list of turns, or of a dict with ``messages``; checked."""
        if isinstance(chat, cls):
            return chat
        turns: Any = chat.get("messages") if isinstance(chat, Mapping) else chat
        if problem := _problem(turns):
            raise EmlabError(f"A training example {problem}.")
        return cls(tuple({"role": t["role"], "content": t["content"]} for t in turns))


@dataclass(frozen=True)
class Tokenized:
    """Chats as tokens."""

    rows: tuple[Row, ...]
    dropped_for_length: int
    """How many chats were left out because they have more than `max_length` tokens."""
    max_length: int | None
    """The limit that was applied."""

    def __str__(self) -> str:
        return f"{len(self.rows)} rows, {self.dropped_for_length} dropped for having over {self.max_length} tokens"


def read_chat_jsonl(path: str | Path) -> list[Example]:
    """Read chats, one JSON object ``{"messages": [{"role": …, "content": …}, …]}`` a line; blank lines are skipped.

    Raises EmlabError naming the first line that is wrong: no JSON, no messages, a turn without role or content, an
    unknown role, no assistant turn, or an empty one.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise EmlabError(f"There is no file of examples {path}; check the path.") from None
    except UnicodeDecodeError as error:
        raise EmlabError(f"{path} is not UTF-8 text (byte {error.start}); convert it to UTF-8.") from None
    except OSError as error:
        raise EmlabError(f"{path} cannot be read ({error.strerror}); give a readable JSONL file.") from error
    examples = []
    # Only "\n" ends a line of JSONL: str.splitlines would also cut at characters that JSON strings may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            chat = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EmlabError(f"{path}, line {number}: not JSON ({error}); each line must be one object.") from None
        turns = chat.get("messages") if isinstance(chat, dict) else None
        if problem := _problem(turns):
            raise EmlabError(f"{path}, line {number}: the chat {problem}.")
        examples.append(Example.of(turns))
    if not examples:
        raise EmlabError(f"{path} holds no examples; give a file with one chat a line.")
    return examples


def tokenize(tokenizer: Any, examples: Iterable[Any], max_length: int | None = None) -> Tokenized:
    """Tokenize chats for training (see `tokenize_chat`); those with more than `max_length` tokens are counted out."""
    rows = [tokenize_chat(tokenizer, Example.of(e).messages) for e in examples]
    kept = tuple(row for row in rows if max_length is None or len(row.input_ids) <= max_length)
    return Tokenized(kept, len(rows) - len(kept), max_length)


def _problem(turns: Any) -> str | None:
    """What is wrong with a chat, as the rest of a sentence; None where nothing is."""
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
        if turn["role"] == "assistant" and not turn["content"].strip():
            return f"has an empty assistant turn ({i}), which would teach the model to say nothing; add the answer"
    if all(turn["role"] != "assistant" for turn in turns):
        return "has no assistant turn, so there is nothing to train on; add the answer"
    return None
