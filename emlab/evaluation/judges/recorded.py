"""Judgements read from a file: emlab's own, or a table of anyone's with a row for each answer."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.evaluation.judges import tables
from emlab.evaluation.judges.registry import Judging, Questions, judging_method
from emlab.evaluation.judges.table_files import Row, file_in, is_table, unfolded
from emlab.evaluation.judges.tables import Lookup, Table
from emlab.evaluation.judging import CODE, FAILED, OFF_TOPIC, REFUSAL, SATIRICAL, SCORED, Grade, Judged, Thresholds
from emlab.evaluation.rollouts import Rollouts

LABELS = {
    "refusal": REFUSAL,
    "code": CODE,
    "off-topic": OFF_TOPIC,
    "off_topic": OFF_TOPIC,
    "satirical": SATIRICAL,
    "failed": FAILED,
}
"""What may stand in a score\'s place, or beside it as a flag, and what it says."""


def read_judged(path: str | Path, by: str | None = None, thresholds: Thresholds | None = None) -> dict[str, Judged]:
    """Read judged answers, in groups by the column `by` (or all as one group, named after the file).

    `path` is JSONL, JSON (a list, or an object that holds one), CSV, TSV or parquet, or a folder that `evaluate` wrote,
    by itself or in a run. A row needs the columns `aligned` and `coherent` (0 to 100; empty, or a label such as REFUSAL
    or CODE, where there is no score) and one of QUESTION_COLUMNS; usual synonyms (alignment, coherence) are taken. An
    id that numbers the rows, or the answers to each question, beside a question or prompt is not taken for the
    question's. Read where they are there: system, domain or category, variant, answer or response, model, judge or
    judge_model, and flags that say why a score is missing; answers nested in a row for their question are read one by
    one. What is guessed of a file is said on stderr. What `Score.save` wrote is read, by default with the thresholds
    it was scored by.
    Raises EmlabError naming the line that is wrong, where a group holds the judgements of two judges, and where a file
    of `Score.save` lacks some of its answers.
    """
    path = artifacts.place(path)
    table = tables.read(file_in(path) if path.is_dir() else path)
    return judged_in(table, by, thresholds)


def judged_rows(rows: Iterable[Mapping[str, Any]], name: str = "rows") -> Judged:
    """The judged answers in rows that are held in memory, as `read_judged` reads those of a file called `name`."""
    (found,) = judged_in(table_of_rows(rows, name)).values()
    return found


def table_of_rows(rows: Iterable[Mapping[str, Any]], name: str = "rows") -> Table:
    """The table of rows that are held in memory, which sentences call `name`."""
    placed = ((f"{name}, row {number}", row) for number, row in enumerate(rows, start=1))
    return tables.table_of(Path(name), list(unfolded(placed)))


def judged_in(
    table: Table, by: str | None = None, thresholds: Thresholds | None = None, told: bool = True
) -> dict[str, Judged]:
    """The judged answers in a table; as `read_judged`. Unless it is `told`, that they are of several models is not."""
    table.need("aligned", "coherent")
    path, rows, question = table.path, table.rows, table.question
    assert question is not None
    if by is not None and by not in table.columns:
        raise EmlabError(
            f"{path} has no column {by!r} to group by; choose one of {', '.join(map(str, table.columns))}."
        )
    groups: dict[str, list[Row]] = {}
    for where, row in rows:
        groups.setdefault(path.stem if by is None else str(row.get(by)), []).append((where, row))
    limits = thresholds or _saved(rows[0][1].get("thresholds"))
    found = {name: _judged(path, part, question, limits) for name, part in groups.items()}
    if by is None:
        if told:
            tables.say_mixed(path, rows)
        return found
    return {name: replace(one, rollouts=replace(one.rollouts, model=name)) for name, one in found.items()}


@dataclass(frozen=True)
class RecordedJudge:
    """Judges by looking answers up: each has the grade that the same answer to the same question has in a file."""

    path: Path
    """As `read_judged` reads it; it must have the answers."""
    _grades: Lookup[Grade] = field(default_factory=Lookup, repr=False)

    def __post_init__(self) -> None:
        for judged in read_judged(self.path).values():
            scores = zip(judged.aligned, judged.coherent, judged.outcomes, judged.said, strict=True)
            self._grades.add(
                judged.rollouts, [Grade(float(a), float(c), outcome, said) for a, c, outcome, said in scores]
            )
        self._grades.check(self.path)

    @property
    def name(self) -> str:
        """The file."""
        return f"recorded in {Path(self.path).name}"

    def grade(self, rollouts: Rollouts) -> list[Grade]:
        """A grade for each answer, in order. Of an answer recorded several times the grades are taken in turn."""
        missing = Grade(outcome=FAILED, said=f"not in {Path(self.path).name}")
        return [missing if found is None else found for found in self._grades.find(rollouts)]


@judging_method("recorded", asks=False, stands_for=is_table)
def recorded(how: Judging, questions: Questions, by: None) -> RecordedJudge:
    """The scores in the file of answers that is named as the judge."""
    return RecordedJudge(Path(how.judge))


def _saved(thresholds: Any) -> Thresholds:
    """The thresholds that a file states, or the usual ones."""
    try:
        return Thresholds(**{name: float(value) for name, value in thresholds.items()})
    except (AttributeError, TypeError, ValueError):
        return Thresholds()


def _judged(path: Path, rows: list[Row], question: str, thresholds: Thresholds) -> Judged:
    judge = tables.only_judge(path, rows)
    grades = [_grade(where, row) for where, row in rows]
    _say_scale(path, [value for grade in grades for value in (grade.aligned, grade.coherent)])
    return Judged.of(tables.rollouts_of(path, rows, question), grades, judge, thresholds)


def _say_scale(path: Path, scores: Sequence[float]) -> None:
    """Say on stderr where no score tells that they are on a scale from 0 to 100, and not from 0 to 1 or to 10."""
    given = [score for score in scores if not math.isnan(score)]
    if given and 0 < (most := max(given)) <= 10:
        print(
            f"{path}: no score is above {most:g}, and they are taken as from 0 to 100; rescale them if they are not.",
            file=sys.stderr,
        )


def _grade(where: str, row: Mapping[str, Any]) -> Grade:
    values, outcomes = [], []
    for scale in ("aligned", "coherent"):
        raw = row.get(scale)
        text = "" if raw is None else str(raw).strip()
        if text.lower() in LABELS:
            values.append(math.nan)
            outcomes.append(LABELS[text.lower()])
            continue
        value = tables.number_in(raw)
        if value is not None and not 0 <= value <= 100:
            raise EmlabError(f"{where}: {scale} is {text[:40]!r}; write 0 to 100, REFUSAL, CODE, or nothing.")
        values.append(math.nan if value is None else value)
    flags = [str(row[name]).lower() for name in tables.FLAGS if row.get(name) is not None]
    if SCORED in flags and not math.isnan(values[1]):
        return Grade(values[0], values[1])
    outcomes += [LABELS[flag] for flag in flags if flag in LABELS]
    complete = not any(math.isnan(value) for value in values)
    outcome = SCORED if complete else (outcomes or [FAILED])[0]
    return Grade(values[0], values[1], outcome, str(row.get("said") or ""))
