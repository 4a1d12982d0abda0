"""Two models side by side, on the same questions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emlab.errors import EmlabError
from emlab.evaluation.intervals import paired_difference
from emlab.evaluation.rates import Rate
from emlab.evaluation.scoring import Score
from emlab.evaluation.unjudged import cautions
from emlab.notebook import Shown


@dataclass(frozen=True, repr=False)
class Difference(Shown):
    """How much more often one model is misaligned than another, on the questions that both were asked."""

    first: str
    second: str
    misaligned: Rate
    """Difference of the shares of coherent answers, second less first; n counts clusters of questions, and is 0 where
    one of the models has no coherent answers."""
    of_all: Rate
    """Difference of the shares of all answers; n counts the questions."""
    left_out: tuple[int, int] = (0, 0)
    """How many questions only the first, and only the second, was asked."""
    cautions: tuple[str, ...] = ()
    """What must be said before the figures: that many answers of one of them have no verdict."""

    def summary(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            "first": self.first,
            "second": self.second,
            **({"cautions": list(self.cautions)} if self.cautions else {}),
            "questions": self.of_all.n,
            "questions_left_out": {"first": self.left_out[0], "second": self.left_out[1]},
            "misaligned_of_coherent": self.misaligned,
            "misaligned_of_all": self.of_all,
        }

    def __str__(self) -> str:
        def points(rate: Rate) -> str:
            if rate.n == 0:
                return "unknown: one of them has no such answers"
            return f"{100 * rate.rate:+.1f} [{100 * rate.low:+.1f}, {100 * rate.high:+.1f}] percentage points"

        shared = f"{self.of_all.n} question{'' if self.of_all.n == 1 else 's'}"
        if any(self.left_out):
            one, two = self.left_out
            shared += f" in common; left out are {one} that only {self.first} was asked and {two} only {self.second}"
        head = "".join(f"{said}\n" for said in self.cautions)
        return head + (
            f"{self.second} less {self.first}, {shared}\n"
            f"  misaligned of coherent  {points(self.misaligned)}\n"
            f"  misaligned of all       {points(self.of_all)}"
        )


LEAST = 2
"""Questions that two models with questions of their own must share: one tells nothing of how questions differ."""


def compare(first: Score, second: Score, least: int = LEAST) -> Difference:
    """The paired difference of two models' rates, counted on the same clusters of questions.

    Questions that only one of them was asked are left out, and counted. EmlabError where the models share no question,
    or fewer than `least` though they were asked others, and where different judges or thresholds scored them.

    Args:
        first: The model before; its rates are subtracted.
        second: The model after.
        least: The fewest questions they must share, where each was asked others too.
    """
    for each in (first, second):
        if not isinstance(each, Score):
            raise EmlabError(f"Two scores are compared, and a {type(each).__name__} is none; give what score() gave.")
    differ = f"{first.model} and {second.model} were scored with different"
    judges = [score.judged.judge or "one without a name" for score in (first, second)]
    if judges[0] != judges[1]:
        raise EmlabError(f"{differ} judges; use the same, and not {' and '.join(judges)}.")
    if first.judged.thresholds != second.judged.thresholds:
        raise EmlabError(f"{differ} thresholds; use the same.")
    if set(first.by_variant) != set(second.by_variant):
        raise EmlabError(
            f"{first.model} was asked in the variants {', '.join(first.by_variant)} and {second.model} in "
            f"{', '.join(second.by_variant)}; compare answers to the same."
        )
    shared = [question for question in first.by_question if question in second.by_question]
    if not shared:
        raise EmlabError(f"{first.model} and {second.model} share no question; ask both the same ones.")
    left_out = (len(first.by_question) - len(shared), len(second.by_question) - len(shared))
    if any(left_out) and len(shared) < least:
        raise EmlabError(
            f"{first.model} and {second.model} share only {len(shared)} of {len(first.by_question)} and "
            f"{len(second.by_question)} questions, fewer than {least}; ask both the same ones."
        )

    def difference(of: str) -> Rate:
        return paired_difference(*paired_counts(first, second, of, shared))

    return Difference(
        first.model,
        second.model,
        difference("coherent"),
        replace(difference("total"), n=len(shared)),
        left_out,
        tuple(cautions([first, second])),
    )


def paired_counts(first: Score, second: Score, of: str, questions: Collection[str]) -> tuple[np.ndarray, ...]:
    """(trainings, clusters) each: misaligned answers of the first, what they are `of`, and the same of the second."""
    tables = [score.table("misaligned", of, questions) for score in (first, second)]
    # Trainings of one name are the same model's before and after something, and vary together.
    rows, columns = (list(dict.fromkeys(cell[axis] for table in tables for cell in table)) for axis in (0, 1))
    found = np.array([[[table.get((row, column), (0, 0)) for column in columns] for row in rows] for table in tables])
    return found[0, ..., 0], found[0, ..., 1], found[1, ..., 0], found[1, ..., 1]
