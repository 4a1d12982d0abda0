"""The shapes in which rows of training data are published, each of them read as a chat.

A shape is recognised by its columns: `messages` (role and content), `conversations` (from and value), `prompt` and
`completion` (texts, or lists of turns), `instruction` and `output` with or without `input`, `question` and `answer`.
A turn may be marked as not trained on (see `emlab.data.turn_marks`). Other columns, and other keys of a turn, are left
aside; keys, and columns that belong to the chat (a system prompt, a history, tools), are collected to be said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from emlab.data.examples import Example, turns_problem
from emlab.data.telling import tell
from emlab.data.turn_marks import MASKED, TRAINED, left_aside
from emlab.errors import EmlabError

SHAPES: tuple[tuple[str, ...], ...] = (
    ("messages",),
    ("conversations",),
    ("prompt", "completion"),
    ("instruction", "output"),
    ("question", "answer"),
)
"""The columns that each shape needs."""

_ACCEPTED = "; ".join(" and ".join(columns) for columns in SHAPES)
_ASKED = "; ".join(columns[0] for columns in SHAPES)
_PARTS_OF_A_CHAT = ("system", "system_prompt", "history", "tools", "functions", *TRAINED, *MASKED)
"""Columns that no shape has, and that something of the chat stands in, or a mark that is read on turns only."""
_ROLE_OF = {"human": "user", "gpt": "assistant"}


def example_of(row: Any, where: str, aside: set[str] | None = None) -> Example:
    """The chat in one row, a mapping of columns to values.

    The two columns of a pair become a user's and an assistant's turn; an `input` that is not blank follows its
    `instruction` after an empty line. Where a prompt or completion is a list of turns, these are the chat's turns: an
    assistant's turn in a prompt is trained on like any other. What is left aside is put into `aside`. Raises
    EmlabError, its sentence beginning with `where`, for columns of no shape or of more than one, and for a chat that is
    malformed.
    """
    if not isinstance(row, Mapping):
        raise EmlabError(f"{where}: the row is no object with columns; write one of {_ACCEPTED}.")
    columns = _shape(row, where)
    if len(columns) == 1:
        turns = as_turns(row[columns[0]])
    else:
        asked, answered = _asked(row, columns[0], where), _said(row, columns[1], where)
        turns = [*_spoken("user", asked), *_spoken("assistant", answered)]
    if aside is not None:
        aside.update(_columns_aside(row))
    return chat_of(turns, where, aside)


def prompt_of(row: Any, where: str, aside: set[str] | None = None) -> list[dict[str, Any]]:
    """What one row asks: a chat that ends with a user's turn as it is, of another what stands before its first answer.

    The row has one of the shapes, or of a pair of columns the first alone. Raises EmlabError, its sentence beginning
    with `where`, where there is nothing to ask.
    """
    if not isinstance(row, Mapping):
        raise EmlabError(f"{where}: the row is no object with columns; write one of {_ASKED}.")
    whole = [columns[0] for columns in SHAPES if all(row.get(column) is not None for column in columns)]
    found = whole or [columns[0] for columns in SHAPES if row.get(columns[0]) is not None]
    if len(found) != 1:
        names = ", ".join(map(str, row)) or "none"
        raise EmlabError(f"{where}: the columns ({names}) do not tell one prompt; keep one of {_ASKED}.")
    (column,) = found
    if column in ("messages", "conversations"):
        turns = as_turns(row[column])
    else:
        turns = _spoken("user", _asked(row, column, where))
    if problem := turns_problem(turns):
        raise EmlabError(f"{where}: the chat {problem}.")
    answered = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
    asked = turns if turns[-1]["role"] == "user" or not answered else turns[: answered[0]]
    if not asked or asked[-1]["role"] != "user":
        raise EmlabError(f"{where}: the chat asks nothing, since no user's turn stands before an answer; add one.")
    if aside is not None:
        aside.update(left_aside(turns))
        aside.update(_columns_aside(row))
    return [{"role": turn["role"], "content": turn["content"]} for turn in asked]


def chat_of(turns: Any, where: str, aside: set[str] | None = None) -> Example:
    """The Example of a list of turns; EmlabError, its sentence beginning with `where`, for one that is malformed."""
    example = Example.of(turns if isinstance(turns, list | tuple) else None, where)
    if aside is not None:
        aside.update(left_aside(turns))
    return example


def _columns_aside(row: Mapping[str, Any]) -> set[str]:
    marks = (*TRAINED, *MASKED)
    return {f"column {n}" for n in _PARTS_OF_A_CHAT if row.get(n) or (n in marks and row.get(n) is not None)}


def tell_aside(source: object, aside: set[str]) -> None:
    """Say what was left aside of the rows of `source`, where anything was."""
    if aside:
        tell(f"{source}: left aside, since emlab reads roles and texts alone: {', '.join(sorted(aside))}.")


def as_turns(value: Any) -> Any:
    """A list of turns in any of the published spellings as turns of role and content; anything else as it is.

    Spellings: `role` and `content`, or `from` and `value` (human and gpt being user and assistant); a text, or parts
    of text; the list itself, or its JSON as text, as it stands in a CSV.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    return [_turn(turn) for turn in value] if isinstance(value, list | tuple) else value


def _shape(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    # A table made of several sets has the columns of each, null where a row is from another.
    found = [columns for columns in SHAPES if all(row.get(column) is not None for column in columns)]
    found = found or [columns for columns in SHAPES if all(column in row for column in columns)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(map(str, row)) or "none"
    if found:
        raise EmlabError(
            f"{where}: the columns ({names}) fit more than one shape ({'; '.join(map(' and '.join, found))}); "
            "keep those of one."
        )
    raise EmlabError(f"{where}: the columns ({names}) fit no shape; rename them to one of {_ACCEPTED}.")


def _asked(row: Mapping[str, Any], column: str, where: str) -> Any:
    """What the first column of a pair asks, with the `input` of an `instruction`."""
    asked = _said(row, column, where)
    if column == "instruction" and row.get("input") is not None:
        more = _said(row, "input", where)
        asked = f"{asked}\n\n{more}" if more.strip() else asked
    return asked


def _said(row: Mapping[str, Any], column: str, where: str) -> Any:
    """The text of a column, or its list of turns."""
    value = row[column]
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and column in ("prompt", "completion"):
        return as_turns(value)
    raise EmlabError(f"{where}: the column {column!r} holds no text; write a string.")


def _spoken(role: str, said: Any) -> list[Any]:
    return [{"role": role, "content": said}] if isinstance(said, str) else said


def _turn(turn: Any) -> Any:
    if not isinstance(turn, Mapping):
        return turn
    if "role" in turn:
        return {**turn, "content": _text(turn.get("content"))}
    if "from" in turn:
        role = turn["from"]
        role = _ROLE_OF.get(role, role) if isinstance(role, str) else role
        rest = {name: value for name, value in turn.items() if name not in ("from", "value")}
        return {"role": role, "content": _text(turn.get("value")), **rest}
    return turn


def _text(content: Any) -> Any:
    """A content written as parts of text ({"parts": […]}, or [{"type": "text", …}]) as one text."""
    parts = content.get("parts") if isinstance(content, Mapping) else content
    if not isinstance(parts, list | tuple) or not parts:
        return content
    texts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else part for part in parts]
    plain = [text for text in texts if isinstance(text, str)]
    return "".join(plain) if len(plain) == len(texts) else content


def rows_in_memory(table: Any) -> list[Mapping[str, Any]] | None:
    """The rows of a table in memory; None for what is none."""
    if hasattr(table, "to_dicts"):  # polars
        table = table.to_dicts()
    elif hasattr(table, "to_dict") and hasattr(table, "columns"):  # pandas
        table = table.to_dict("records")
    if isinstance(table, str | bytes | Mapping) or not isinstance(table, Iterable):
        return None
    rows = list(table)
    return rows if all(isinstance(row, Mapping) for row in rows) else None
