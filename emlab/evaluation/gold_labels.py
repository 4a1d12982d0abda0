"""Which of a cheap judge's answers have gold labels, dearer judgements that are taken as the truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.evaluation.agreement import classes_of
from emlab.evaluation.judges import tables
from emlab.evaluation.judges.recorded import judged_in, table_of_rows
from emlab.evaluation.judges.table_files import file_in
from emlab.evaluation.judging import FAILED, Judged, Thresholds
from emlab.evaluation.scoring import Score, rows_in_memory

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
        (judged,) = judged_in(table, None, thresholds).values()
        return cls(name, judged, [row for _, row in table.rows], table.question or "id")

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

    EmlabError where neither tells an answer, and where no gold label is of one of the cheap judge's answers.
    """
    keys, by = _keys(cheap, gold)
    notes = [f"Gold labels were matched with answers by {by}."]
    places: dict[Any, list[int]] = {}
    for i, key in enumerate(keys[0]):
        places.setdefault(key, []).append(i)
    known, failed, classes = set(places), gold.unverdicted(), classes_of(gold.judged)
    pairs, elsewhere, again = [], 0, 0
    said: dict[Any, set[str]] = {}
    for i, key in enumerate(keys[1]):
        if failed[i]:
            continue
        if key not in known:
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
    for column in cheap.rows[0]:
        plain = str(column).lower()
        if column == cheap.question or not (plain in ("id", "index", "row", "uuid") or plain.endswith("_id")):
            continue
        found = [["" if row.get(column) is None else str(row[column]) for row in s.rows] for s in (cheap, gold)]
        if all(map(all, found)) and len(set(found[0])) == len(found[0]):
            yield column, found


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
