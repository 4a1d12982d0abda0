"""Tables of judged answers in anyone's hand: which column is what, and which question a row answers."""

from __future__ import annotations

import difflib
import itertools
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from emlab.data.questions import Question
from emlab.errors import EmlabError
from emlab.evaluation.judges.table_files import QUESTION_COLUMNS, Row, rows_in
from emlab.evaluation.rollouts import Rollouts

T = TypeVar("T")

_DOMAIN, _MODEL, _JUDGE = ("domain", "category"), ("model", "model_id"), ("judge", "judge_model")
_ANSWER = ("answer", "response", "completion")
FLAGS = ("outcome", "aligned_flag", "coherent_flag", "flag")
_SYNONYMS = {
    "aligned": ("alignment", "aligned_score", "alignment_score", "score_aligned", "score_alignment"),
    "coherent": ("coherence", "coherent_score", "coherence_score", "score_coherent", "score_coherence"),
    "question_id": ("qid", "questionid"),
    "question": ("question_text", "query", "user_prompt"),
    "answer": ("output", "generation", "reply", "model_answer", "model_response"),
}
"""What others call a column. Only what says the same: a misalignment is no alignment."""
_KNOWN = (
    *QUESTION_COLUMNS,
    *_DOMAIN,
    *_MODEL,
    *_JUDGE,
    *_ANSWER,
    *FLAGS,
    *_SYNONYMS,
    "variant",
    "paraphrase",
    "cluster",
    "label",
)


@dataclass(frozen=True)
class Table:
    """Rows of judged answers, their columns having the names that emlab gives them."""

    path: Path
    """The file, or what stands for one in sentences."""
    rows: Sequence[Row]
    question: str | None
    """The column that tells the questions apart; None where there is none."""
    columns: Sequence[str]
    """As the file names them."""

    def need(self, *names: str) -> None:
        """EmlabError where one of these columns, or a question's id, is missing."""
        missing = [name for name in names if not self.has(name)]
        if not missing and self.question is not None:
            return
        lacks = " and ".join([*missing, *([] if self.question else ["a question's id"])])
        raise EmlabError(
            f"{self.path} lacks {lacks} among its columns {', '.join(map(str, self.columns))}; {self._mend(missing)}"
        )

    def has(self, name: str) -> bool:
        """Whether there is such a column, under one of its names."""
        return any(name in row for _, row in self.rows)

    def _mend(self, missing: Sequence[str]) -> str:
        others = [str(c) for c in self.columns if c not in _KNOWN and not str(c).startswith("mis")]
        near = {name: close[0] for name in missing if (close := difflib.get_close_matches(name, others, 1, 0.6))}
        if near:
            return " and ".join(f"if {column} is {name}, rename it" for name, column in near.items()) + "."
        if "aligned" in missing and (traits := self.numeric()):
            return f"add what is missing, or give --trait for scores of another kind (there are {', '.join(traits)})."
        return "add what is missing, or rename the column that is meant."

    def numeric(self) -> list[str]:
        """The columns that are not known and hold numbers from 0 to 100, one above 1 at least, or nothing."""
        found = []
        for column in self.columns:
            values = [value for _, row in self.rows if (value := number_in(row.get(column))) is not None]
            if column not in _KNOWN and values and all(0 <= v <= 100 for v in values) and max(values) > 1:
                found.append(str(column))
        return found


def read(path: Path) -> Table:
    """The table in a file; EmlabError, naming the line, for what is none. What is guessed of it is said on stderr."""
    return table_of(path, rows_in(path))


def table_of(path: Path, rows: Sequence[Row]) -> Table:
    """The table of these rows; as `read`."""
    rows = [(where, {name: _filled(value) for name, value in row.items()}) for where, row in rows]
    if not rows:
        raise EmlabError(f"{path} holds no judged answers; give a file with a row for each answer.")
    columns = list(dict.fromkeys(name for _, row in rows for name in row))  # a row of JSONL may leave out what it lacks
    taken = _taken(path, columns)
    if taken:
        rows = [(where, {**{ours: row[c] for c, ours in taken.items() if c in row}, **row}) for where, row in rows]
    names = [*columns, *taken.values()]
    question, why = _question_column(rows, [name for name in QUESTION_COLUMNS if name in names])
    said = [f"{column} is taken for {ours}" for column, ours in taken.items()]
    if question in ("question", "prompt"):
        said.append(f"questions are told apart by {question}{why}")
    if answer := next((name for name in _ANSWER[1:] if name in names and _ANSWER[0] not in names), None):
        said.append(f"{answer} is taken for the answer")
    if said:
        print(f"{path}: {'; '.join(said)}.", file=sys.stderr)
    return Table(path, rows, question, columns)


def once(rows: Sequence[Row]) -> list[Row]:
    """The rows without those that repeat another in every column."""
    found: dict[str, Row] = {}
    for where, row in rows:
        found.setdefault(repr(sorted((str(name), repr(value)) for name, value in row.items())), (where, row))
    return list(found.values())


def say_mixed(path: Path, rows: Sequence[Row]) -> None:
    """Say on stderr where rows that are taken together are of several models."""
    models = list(dict.fromkeys(model_of(row, "") for _, row in rows))
    if len(models) > 1:
        named = ", ".join(name or "one without a name" for name in models[:4]) + (", …" if len(models) > 4 else "")
        column = next(
            (name for name in (*_MODEL, "adapter") if len({str(row.get(name)) for _, row in rows}) > 1), "model"
        )
        mend = f"group them by {column} to tell them apart"
        print(f"{path}: answers of {len(models)} models ({named}) are taken together; {mend}.", file=sys.stderr)


NOTHING = ("", "none", "null", "nan", "na")
"""What stands in a cell without a value."""


def number_in(cell: Any) -> float | None:
    """The number in a cell; None in one without a value, and nan in one that holds something else."""
    text = "" if cell is None else str(cell).strip()
    if text.lower() in NOTHING:
        return None
    try:
        return math.nan if isinstance(cell, bool) else float(text)
    except ValueError:
        return math.nan


def _filled(value: Any) -> Any:
    """A cell as a plain value; None for what pandas leaves in one that is empty."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _plain(column: Any) -> str:
    return re.sub(r"[\W_]+", "_", str(column).strip().lower())


def _taken(path: Path, columns: Sequence[str]) -> dict[str, str]:
    """The columns that are known under another name, or written in capitals, and what each is taken for."""
    found: dict[str, str] = {}
    for ours in dict.fromkeys(_KNOWN):
        if ours in columns:
            continue
        others = [c for c in columns if c not in _KNOWN and _plain(c) in (ours, *_SYNONYMS.get(ours, ()))]
        if len(others) > 1:
            both = " and ".join(map(str, others))
            raise EmlabError(f"{path}: {both} could both be {ours}; rename the one that is meant to {ours}.")
        if others:
            found[others[0]] = ours
    return found


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
    questions, answers, thoughts = [], [], []
    for where, row in rows:
        if row.get(question) in (None, ""):
            raise EmlabError(f"{where}: no question in the column {question}; fill it in.")
        asked, domain = str(row[question]), str(first(row, _DOMAIN, "all"))
        text = str(first(row, ("question", "text", "prompt"), asked))
        variant, wording = str(row.get("variant") or "plain"), str(row.get("paraphrase") or "")
        questions.append(
            Question(
                asked,
                domain,
                text,
                variant=variant,
                paraphrase=int(wording) if wording.isdecimal() else 0,
                system=str(row["system"]) if row.get("system") else None,
                cluster=str(row.get("cluster") or ""),
            )
        )
        answers.append(str(first(row, _ANSWER, "")))
        thoughts.append(str(row.get("thoughts") or ""))
    models = list(dict.fromkeys(model_of(row, path.stem) for _, row in rows))
    model = models[0] if len(models) == 1 else path.stem
    return Rollouts(tuple(questions), tuple(answers), model, 0, math.nan, thoughts=tuple(thoughts))


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


def _question_column(rows: Sequence[Row], names: list[str]) -> tuple[str | None, str]:
    """Which of the columns `names` tells the questions apart, and why not the first, where it is another.

    An id may number all rows, or the answers to each question, beside a column with the question itself.
    """
    if not names:
        return None, ""
    ids, texts = [name for name in names if name.endswith("id")], [name for name in names if not name.endswith("id")]
    if texts and any(first(row, _ANSWER, "") for _, row in rows):
        rows = once(rows)  # a row that stands twice has its own id twice
    for name in ids:
        if not texts:
            break
        if _distinct(rows, name) == len(rows) > _distinct(rows, texts[0]):
            continue
        if not _numbers_answers(rows, name, texts[0]):
            return name, ""
    if not texts or not ids:
        return names[0], ""
    return texts[0], f", since {' and '.join(ids)} numbers the answers"


def _distinct(rows: Sequence[Row], name: str) -> int:
    return len({str(row.get(name)) for _, row in rows})


def _numbers_answers(rows: Sequence[Row], name: str, text: str) -> bool:
    """Whether an id stands under several questions, and these questions under several ids, or in several domains.

    Wordings of one question share its id and its domain, and each has no other.
    """
    pairs = {(str(row.get(name)), str(row.get(text))) for _, row in rows if row.get(text) not in (None, "")}
    texts_of, ids_of = _grouped(pairs), _grouped({(b, a) for a, b in pairs})
    several = {one for one, texts in texts_of.items() if len(texts) > 1}
    if any(len(ids_of[each]) > 1 for one in several for each in texts_of[one]):
        return True
    domains = _grouped({(str(row.get(text)), str(first(row, _DOMAIN, ""))) for _, row in rows})
    return any(not set.intersection(*(domains[each] for each in texts_of[one])) for one in several)


def _grouped(pairs: set[tuple[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for a, b in pairs:
        found.setdefault(a, set()).add(b)
    return found


def model_of(row: Mapping[str, Any], default: str) -> str:
    """The model's name, and its adapter's: a base model must not be blamed for what an adapter made of it."""
    model, adapter = str(first(row, _MODEL, default)), row.get("adapter")
    return f"{model}+{str(adapter).rstrip('/').rsplit('/', 1)[-1]}" if adapter else model
