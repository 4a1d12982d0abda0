"""Tables of judged answers in anyone's hand: a JSONL or CSV file with a row for each answer."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from emlab.data.questions import Question
from emlab.errors import EmlabError
from emlab.evaluation.rollouts import Rollouts

T = TypeVar("T")
Row = tuple[int, Mapping[str, Any]]
"""A row, with the line it begins at."""

QUESTION_COLUMNS = ("question_id", "id", "question", "prompt")
"""Where a row's question is named, the first that is there."""
_DOMAIN, _MODEL, _JUDGE = ("domain", "category"), ("model", "model_id"), ("judge", "judge_model")
_ANSWER = ("answer", "response", "completion")
_SAID_ONCE = ("model", "judge", "thresholds", "asked_for", "choices")
"""What emlab's own files say in a line before the answers."""


def read(path: Path, needed: Sequence[str]) -> tuple[list[Row], str, list[str]]:
    """The rows, which column names their questions, and all columns.

    EmlabError, naming the line, for what is no table, and where one of the columns `needed` or the question is missing.
    """
    rows: list[Row] = list(_lines(path))
    if not rows:
        raise EmlabError(f"{path} holds no judged answers; give a file with a row for each answer.")
    names = list(dict.fromkeys(name for _, row in rows for name in row))  # a row of JSONL may leave out what it lacks
    question = _question_column(rows, [name for name in QUESTION_COLUMNS if name in names])
    missing = [name for name in needed if name not in names]
    if missing or question is None:
        lacks = " and ".join([*missing, *([] if question else ["a question's id"])])
        raise EmlabError(f"{path} lacks {lacks} among its columns {', '.join(map(str, names))}; add what is missing.")
    return rows, question, names


def only_judge(path: Path, rows: Sequence[Row]) -> str:
    """The judge of these rows; EmlabError where there are two."""
    judges = sorted({str(first(row, _JUDGE, "")) for _, row in rows})
    if len(judges) > 1:
        column = next(name for name in _JUDGE if any(first(row, (name,), "") != "" for _, row in rows))
        named = " and ".join(name or "a judge without a name" for name in judges)
        raise EmlabError(
            f"{path} holds the judgements of {named}, which must not be mixed in one score; group them by {column}."
        )
    return judges[0]


def rollouts_of(path: Path, rows: Sequence[Row], question: str) -> Rollouts:
    """The answers in these rows, `question` being the column that names their questions."""
    questions, answers = [], []
    for number, row in rows:
        if row.get(question) in (None, ""):
            raise EmlabError(f"{path}, line {number}: no question in the column {question}; fill it in.")
        asked, domain = str(row[question]), str(first(row, _DOMAIN, "all"))
        text = str(first(row, ("question", "text", "prompt"), asked))
        variant, wording = str(row.get("variant") or "plain"), str(row.get("paraphrase") or "")
        questions.append(
            Question(asked, domain, text, variant=variant, paraphrase=int(wording) if wording.isdecimal() else 0)
        )
        answers.append(str(first(row, _ANSWER, "")))
    models = list(dict.fromkeys(_model(row, path.stem) for _, row in rows))
    model = models[0] if len(models) == 1 else path.stem
    return Rollouts(tuple(questions), tuple(answers), model, 0, math.nan)


@dataclass
class Lookup(Generic[T]):
    """What a file says of answers, found by question and text."""

    _found: dict[tuple[str, str, str, str], list[T]] = field(default_factory=dict)

    def add(self, rollouts: Rollouts, said: Sequence[T]) -> None:
        """Take in what is said of each answer."""
        # A table of anyone's may not tell the variants, or the wordings: "Yes." answers many questions.
        variants = any(question.variant != "plain" for question in rollouts.questions)
        wordings = any(question.paraphrase for question in rollouts.questions)
        for (question, answer), one in zip(rollouts, said, strict=True):
            variant, wording = question.variant if variants else "", str(question.paraphrase) if wordings else ""
            self._found.setdefault((question.id, variant, wording, answer), []).append(one)

    def check(self, path: str | Path) -> None:
        """EmlabError where no row had the text of its answer."""
        if not any(answer for *_, answer in self._found):
            raise EmlabError(
                f"{path} has no answers to look up; add them in a column {_ANSWER[0]}, or score the file itself."
            )

    def find(self, rollouts: Rollouts) -> list[T | None]:
        """What is said of each answer, in turn where it is there several times; None where nothing is."""
        taken: dict[tuple[str, str, str, str], int] = {}
        found: list[T | None] = []
        for question, answer in rollouts:
            told = itertools.product((question.variant, ""), (str(question.paraphrase), ""))
            keys = [(question.id, variant, wording, answer) for variant, wording in told]
            key = next((key for key in keys if key in self._found), keys[0])
            said = self._found.get(key)
            found.append(None if said is None else said[taken.get(key, 0) % len(said)])
            taken[key] = taken.get(key, 0) + 1
        return found


def first(row: Mapping[str, Any], names: tuple[str, ...], default: str) -> Any:
    """The first of these columns that is filled in."""
    return next((row[name] for name in names if row.get(name) not in (None, "")), default)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with the line it begins at."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EmlabError(f"The judged answers {path} cannot be read ({error}); check the path.") from error
    if path.suffix.lower() == ".csv":
        lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            header = [name.strip() for name in lines.fieldnames or ()]
        except csv.Error as error:
            raise EmlabError(f"{path}, line 1: not CSV ({error}); mend the line.") from error
        if twice := [name for name in header if header.count(name) > 1]:
            raise EmlabError(f"{path} has more than one column {twice[0]!r}; rename all but one.")
        lines.fieldnames = header
        while True:
            number = lines.line_num + 1
            try:
                row = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                raise EmlabError(f"{path}, line {number}: not CSV ({error}); mend the line.") from error
            if any(row.pop(None, ())):
                raise EmlabError(f"{path}, line {number}: more cells than columns; quote cells that hold commas.")
            if None in row.values():
                raise EmlabError(f"{path}, line {number}: fewer cells than columns; mend the line.")
            yield max(number, 2), row
    about: dict[str, Any] = {}
    awaited: int | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EmlabError(f"{path}, line {number}: not JSON ({error}); each line must be one object.") from error
        if not isinstance(row, dict):
            raise EmlabError(f"{path}, line {number}: not an object; write one row a line.")
        if {"model", "seed", "temperature", "n"} <= set(row) and "answer" not in row:  # `Score.save`, on the sampling
            if awaited:
                break
            about = {name: row[name] for name in _SAID_ONCE if row.get(name)}
            awaited = row["n"] if isinstance(row["n"], int) else None
            continue
        awaited = None if awaited is None else awaited - 1
        yield number, {**about, **row}
    if awaited:
        raise EmlabError(f"{path} does not hold the answers that it says it holds; judge them again.")


def _question_column(rows: Sequence[Row], names: list[str]) -> str | None:
    """Which of the columns `names` tells the questions apart."""

    def distinct(name: str) -> int:
        return len({str(row.get(name)) for _, row in rows})

    if len(names) > 1 and names[0] == "id" and distinct("id") == len(rows) > distinct(names[1]):
        return names[1]
    return names[0] if names else None


def _model(row: Mapping[str, Any], default: str) -> str:
    """The model's name, and its adapter's: a base model must not be blamed for what an adapter made of it."""
    model, adapter = str(first(row, _MODEL, default)), row.get("adapter")
    return f"{model}+{str(adapter).rstrip('/').rsplit('/', 1)[-1]}" if adapter else model
