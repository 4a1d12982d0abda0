"""Judgements read from a file: emlab's own, or a table of anyone's (JSONL or CSV) with a row for each answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emlab.errors import EmlabError
from emlab.evaluation.judges import tables
from emlab.evaluation.judges.tables import Lookup, Row
from emlab.evaluation.judging import CODE, FAILED, OFF_TOPIC, REFUSAL, SATIRICAL, SCORED, Grade, Judged, Thresholds
from emlab.evaluation.rollouts import Rollouts

_FLAGS = ("outcome", "aligned_flag", "coherent_flag", "flag")
_LABELS = {
    "refusal": REFUSAL,
    "code": CODE,
    "off-topic": OFF_TOPIC,
    "off_topic": OFF_TOPIC,
    "satirical": SATIRICAL,
    "failed": FAILED,
}
_NOTHING = ("", "none", "null", "nan", "na")


def read_judged(path: str | Path, by: str | None = None, thresholds: Thresholds | None = None) -> dict[str, Judged]:
    """Read judged answers, in groups by the column `by` (or all as one group, named after the file).

    A row needs the columns `aligned` and `coherent` (0 to 100; empty, or a label such as REFUSAL or CODE, where there
    is no score) and one of QUESTION_COLUMNS; an `id` that numbers the rows, beside a question or prompt that comes
    several times, is not taken for the question's. Read where they are there: domain or category, variant, answer or
    response, model, judge or judge_model, and flags that say why a score is missing. What `Score.save` wrote is read,
    by default with the thresholds it was scored by.
    Raises EmlabError naming the line that is wrong, where a group holds the judgements of two judges, and where a file
    of `Score.save` lacks some of its answers.
    """
    path = Path(path)
    rows, question, names = tables.read(path, ("aligned", "coherent"))
    if by is not None and by not in names:
        raise EmlabError(f"{path} has no column {by!r} to group by; choose one of {', '.join(map(str, names))}.")
    groups: dict[str, list[Row]] = {}
    for number, row in rows:
        groups.setdefault(path.stem if by is None else str(row.get(by)), []).append((number, row))
    limits = thresholds or _saved(rows[0][1].get("thresholds"))
    found = {name: _judged(path, part, question, limits) for name, part in groups.items()}
    if by is None:
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


def _saved(thresholds: Any) -> Thresholds:
    """The thresholds that a file states, or the usual ones."""
    try:
        return Thresholds(**{name: float(value) for name, value in thresholds.items()})
    except (AttributeError, TypeError, ValueError):
        return Thresholds()


def _judged(path: Path, rows: list[Row], question: str, thresholds: Thresholds) -> Judged:
    judge = tables.only_judge(path, rows)
    grades = [_grade(path, number, row) for number, row in rows]
    return Judged.of(tables.rollouts_of(path, rows, question), grades, judge, thresholds)


def _grade(path: Path, number: int, row: Mapping[str, Any]) -> Grade:
    values, outcomes = [], []
    for scale in ("aligned", "coherent"):
        raw = row.get(scale)
        text = "" if raw is None else str(raw).strip()
        if text.lower() in _NOTHING:
            values.append(math.nan)
        elif text.lower() in _LABELS:
            values.append(math.nan)
            outcomes.append(_LABELS[text.lower()])
        else:
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if isinstance(raw, bool) or not 0 <= value <= 100:
                raise EmlabError(
                    f"{path}, line {number}: {scale} is {text[:40]!r}; write 0 to 100, REFUSAL, CODE, or nothing."
                )
            values.append(value)
    flags = [str(row[name]).lower() for name in _FLAGS if row.get(name) is not None]
    if SCORED in flags and not math.isnan(values[1]):
        return Grade(values[0], values[1])
    outcomes += [_LABELS[flag] for flag in flags if flag in _LABELS]
    complete = not any(math.isnan(value) for value in values)
    outcome = SCORED if complete else (outcomes or [FAILED])[0]
    return Grade(values[0], values[1], outcome, str(row.get("said") or ""))
