"""Which of a cheap judge's answers have gold labels, dearer judgements that are taken as the truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emlab import artifacts
from emlab.data.shapes import rows_in_memory
from emlab.errors import EmlabError
from emlab.evaluation.agreement import classes_of
from emlab.evaluation.judges import tables
from emlab.evaluation.judges.recorded import judged_in, table_of_rows
from emlab.evaluation.judges.table_files import file_in
from emlab.evaluation.judging import FAILED, Judged, Thresholds
from emlab.evaluation.scoring import Score

Answers = Judged | Score | str | Path | Iterable[Mapping[str, Any]]
"""Judged answers, a file of them, or rows in memory, as `read_judged` and `score_judged` take them."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """Judged answers with the rows that they stood in."""

    name: str
    """In sentences."""
    judged: Judged
    rows: Sequence[Mapping[str, Any]]
    """Of each answer."""
    question: str = "id"
    """The column of the rows that tells the questions apart."""
    copies: int = 0
    """Rows that repeated another in full, its id too, and were left out."""

    @classmethod
    def of(cls, answers: Answers, name: str, thresholds: Thresholds | None = None) -> Sheet:
        """A sheet of them; EmlabError where they are none."""
        if isinstance(answers, str | Path):
            path = artifacts.place(answers)
            if path.suffix == ".eval":
                from emlab.evaluation.inspect_log import read_inspect_log

                return cls._held(read_inspect_log(path, thresholds), str(answers))
            table, name = tables.read(file_in(path) if path.is_dir() else path), str(answers)
        elif isinstance(answers, Judged | Score):
            return cls._held(answers if isinstance(answers, Judged) else answers.judged, name)
        else:
            rows = rows_in_memory(answers)
            if rows is None:
                raise EmlabError(
                    f"{name} is no judged answers but a {type(answers).__name__}; give what judge() made, a file, or "
                    "rows."
                )
            table = table_of_rows(rows, name)
        question, kept = table.question or "id", tables.once(table.rows)
        if not any(_own_ids([row for _, row in kept], question)):
            kept = list(table.rows)  # nothing tells copies from samples that say the same
        (judged,) = judged_in(replace(table, rows=kept), None, thresholds).values()
        return cls(name, judged, [row for _, row in kept], question, len(table.rows) - len(kept))

    @classmethod
    def _held(cls, judged: Judged, name: str) -> Sheet:
        return cls(name, judged, [{**row, "model": judged.rollouts.model} for row in judged.rollouts.rows()])

    @property
    def models(self) -> list[str]:
        """The model of each answer; empty where no row names it."""
        return [tables.model_of(row, "") for row in self.rows]

    def unverdicted(self) -> np.ndarray:
        """(n,) bool: which answers the judge failed on."""
        return self.judged.are(FAILED)

    def repeats(self) -> int:
        """How many answers say what another to the same question said; none where ids tell that they are others."""
        if any(_own_ids(self.rows, self.question)):
            return 0
        asked = self.judged.rollouts
        return len(asked) - len(set(zip(asked.questions, asked.answers, self.models, strict=True)))


@dataclass(frozen=True, eq=False)
class Matched:
    """Which answers have gold labels."""

    cheap: np.ndarray
    """(n,) int: the numbers of the cheap judge's answers that have one."""
    gold: np.ndarray
    """(n,) int: the numbers of their gold labels."""
    notes: tuple[str, ...]
    """What was left out or guessed, a sentence each."""


def match(cheap: Sheet, gold: Sheet) -> Matched:
    """Match gold labels with answers: by a column of ids that both have, or by question, text, variant and model.

    EmlabError where neither tells an answer, and where no gold label has a verdict, or is of one of the cheap judge's
    answers.
    """
    failed, classes = gold.unverdicted(), classes_of(gold.judged)
    if failed.all():
        raise EmlabError(
            f"None of the {len(failed)} gold labels in {gold.name} has a verdict; give it aligned and coherent scores."
        )
    keys, by = _keys(cheap, gold)
    notes = [f"Gold labels were matched with answers by {by}."]
    notes += [_copies(sheet) for sheet in (cheap, gold) if sheet.copies]
    if n := cheap.repeats():
        notes.append(
            f"{n} answers in {cheap.name} repeat others word for word and count as further samples, since no ids tell "
            "which are copies."
            if n > 1
            else f"1 answer in {cheap.name} repeats another word for word and counts as a further sample, since no ids "
            "tell whether it is a copy."
        )
    places: dict[Any, list[int]] = {}
    for i, key in enumerate(keys[0]):
        places.setdefault(key, []).append(i)
    pairs, elsewhere, again = [], 0, 0
    said: dict[Any, set[str]] = {}
    for i, key in enumerate(keys[1]):
        if failed[i]:
            continue
        if key not in places:
            elsewhere += 1
            continue
        said.setdefault(key, set()).add(classes[i])
        if places[key]:
            pairs.append((places[key].pop(0), i))
        else:
            again += 1
    if not pairs:
        raise EmlabError(
            f"No gold label in {gold.name} is of an answer in {cheap.name}; both must name the same questions, answers "
            "and models, or have a column of ids."
        )
    differ = sum(len(each) > 1 for each in said.values())
    notes += [
        f"{_are(n, 'gold label')} {why}."
        for n, why in (
            (int(failed.sum()), "without a verdict, and left out"),
            (elsewhere, f"of answers that are not in {cheap.name}, and left out"),
            (again, "of an answer that has one already, and left out: the first counts"),
        )
        if n
    ]
    if differ:
        notes.append(f"{differ} {'answers have' if differ > 1 else 'answer has'} gold labels that differ.")
    limits = [sheet.judged.thresholds for sheet in (cheap, gold)]
    if limits[0] != limits[1]:
        notes.append(
            f"{cheap.name} and {gold.name} have different thresholds; the corrected rates are by the latter's."
        )
    a, b = zip(*pairs, strict=True)
    return Matched(np.array(a), np.array(b), tuple(notes))


def _copies(sheet: Sheet) -> str:
    if sheet.copies > 1:
        return f"{sheet.copies} rows of {sheet.name} repeat others in full, their ids too, and count once."
    return f"1 row of {sheet.name} repeats another in full, its id too, and counts once."


def _are(n: int, what: str) -> str:
    return f"{n} {what}{'s are' if n > 1 else ' is'}"


def _keys(cheap: Sheet, gold: Sheet) -> tuple[list[list[Any]], str]:
    """What tells each answer in both sheets, and what that is in words."""
    for column, ids in _ids(cheap, gold):
        if _same_answers(cheap, gold, ids):
            return ids, f"the column {column}"
    told = [any(sheet.judged.rollouts.answers) for sheet in (cheap, gold)]
    if not all(told):
        lacking = [sheet.name for sheet, has in zip((cheap, gold), told, strict=True) if not has]
        raise EmlabError(
            f"The answers' texts are not in {' and '.join(lacking)}, and no column of ids in both tells the answers; "
            "add one or the other."
        )
    asked = [sheet.judged.rollouts.questions for sheet in (cheap, gold)]
    parts = {
        "question": [[q.id for q in questions] for questions in asked],
        "text": [list(sheet.judged.rollouts.answers) for sheet in (cheap, gold)],
        "variant": [[q.variant if q.variant != "plain" else "" for q in questions] for questions in asked],
        "wording": [[str(q.paraphrase or "") for q in questions] for questions in asked],
        "model": [cheap.models, gold.models],
    }
    used = {name: both for name, both in parts.items() if name in ("question", "text") or all(map(any, both))}
    keys = [list(zip(*(both[i] for both in used.values()), strict=True)) for i in (0, 1)]
    by = ", ".join(used)
    if "model" not in used and len(set(cheap.models)) > 1:
        by += f", since {gold.name} does not name the models"
    return keys, by


def _ids(cheap: Sheet, gold: Sheet) -> Iterator[tuple[str, list[list[Any]]]]:
    """The columns of ids that both have, one for each of the cheap judge's answers."""
    for column, ids in _own_ids(cheap.rows, cheap.question):
        found = [ids, _texts(gold.rows, column)]
        if all(found[1]):
            yield column, found


def _own_ids(rows: Sequence[Mapping[str, Any]], question: str) -> Iterator[tuple[str, list[str]]]:
    """The columns that give each row an id of its own, and these."""
    for column in rows[0]:
        plain = str(column).lower()
        if column == question or not (plain in ("id", "index", "row", "uuid") or plain.endswith("_id")):
            continue
        found = _texts(rows, column)
        if all(found) and len(set(found)) == len(found):
            yield column, found


def _texts(rows: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    return ["" if row.get(column) is None else str(row[column]) for row in rows]


def _same_answers(cheap: Sheet, gold: Sheet, ids: list[list[Any]]) -> bool:
    """Whether what has the same id in both is of the same question, and of the same text where both tell it."""
    place = {name: i for i, name in enumerate(ids[0])}
    ours, theirs = cheap.judged.rollouts, gold.judged.rollouts
    shared = [(place[name], i) for i, name in enumerate(ids[1]) if name in place]
    return bool(shared) and all(
        ours.questions[a].id == theirs.questions[b].id
        and (ours.answers[a] == theirs.answers[b] or not (ours.answers[a] and theirs.answers[b]))
        for a, b in shared
    )
