"""Two judges on the same answers: how far they agree, and what rate each gives."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from emlab.errors import EmlabError
from emlab.evaluation.judging import Judged
from emlab.evaluation.scoring import Score
from emlab.notebook import Shown

CLASSES = ("misaligned", "aligned", "incoherent", "not scored")
"""What an answer counts as under a judge."""


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(Shown):
    """What two judges made of the same answers."""

    first: Score
    """The rates under the first judge, of the answers that both judged."""
    second: Score
    """The same under the second."""
    n: int
    """Answers that both judged."""
    left_out: int
    """Answers that only one of them judged."""
    alpha_aligned: float
    """Krippendorff's alpha, interval, of the aligned scores (1: they agree, 0: as by chance; nan where undefined)."""
    alpha_coherent: float
    """The same of the coherent scores."""
    alpha_misaligned: float
    """The same, nominal, of being misaligned or not, over the answers that both scored."""
    confusion: Mapping[str, Mapping[str, int]]
    """Answers by their class under the first judge, and under the second, at the thresholds."""
    by_order: bool = False
    """Whether the answers were matched by their order in each question, since neither file has their texts."""

    def summary(self) -> dict[str, Any]:
        """The figures as plain values."""
        judges = {"first": self.first, "second": self.second}
        return {
            "n": self.n,
            "left_out": self.left_out,
            "matched_by": "order" if self.by_order else "text",
            **{k: _plain(getattr(self, k)) for k in ("alpha_aligned", "alpha_coherent", "alpha_misaligned")},
            "confusion": {one: dict(row) for one, row in self.confusion.items()},
            **{which: score.summary(questions=False) for which, score in judges.items()},
        }

    def __str__(self) -> str:
        one, two = (score.judged.judge or score.model for score in (self.first, self.second))
        lines = [
            f"{self.n} answers judged by {one} (rows) and {two} (columns)"
            + (f"; {self.left_out} judged by one of them alone are left out" if self.left_out else ""),
            *(["  matched by order: neither file has the answers' texts"] if self.by_order else []),
            f"  Krippendorff's alpha: aligned {self.alpha_aligned:.3f}, coherent {self.alpha_coherent:.3f}, "
            f"misaligned or not {self.alpha_misaligned:.3f}",
            " " * 14 + "".join(f"{name:>12}" for name in CLASSES),
        ]
        lines += [f"  {a:<12}" + "".join(f"{self.confusion[a][b]:>12}" for b in CLASSES) for a in CLASSES]
        for name, score in ((one, self.first), (two, self.second)):
            lines.append(f"  misaligned of coherent by {name}: {score.misaligned}, of all: {score.of_all}")
        return "\n".join(lines)


def agreement(first: Judged, second: Judged) -> Agreement:
    """Compare two judges' judgements of the same answers, which are matched by question and text.

    Where neither has the answers' texts, they are matched by their order in each question, and there must be as many.
    EmlabError where they share no answer, where only one of them has texts, and where answers without texts differ in
    number.
    """
    texts = [any(judged.rollouts.answers) for judged in (first, second)]
    if texts[0] != texts[1]:
        raise EmlabError(
            f"Only the {'first' if texts[0] else 'second'} judge's file has the answers' texts, so that nothing tells "
            "whether both judged the same; add them to the other, in a column answer."
        )
    keys = [_keys(judged, both=(first, second)) for judged in (first, second)]
    if not any(texts) and Counter(keys[0]) != Counter(keys[1]):
        raise EmlabError(
            "The two files have no texts of answers and not as many answers to each question, so that they cannot be "
            "matched; add the texts, in a column answer."
        )
    places: dict[tuple[str, ...], list[int]] = {}
    for i, key in enumerate(keys[1]):
        places.setdefault(key, []).append(i)
    pairs = [(i, places[key].pop(0)) for i, key in enumerate(keys[0]) if places.get(key)]
    if not pairs:
        raise EmlabError("The two judges share no answer; give judgements of the same rollouts.")
    a, b = (list(column) for column in zip(*pairs, strict=True))
    left_out = len(first.rollouts) + len(second.rollouts) - 2 * len(pairs)
    first, second = first.only(a), second.only(b)
    both = first.scored & second.scored
    classes = [classes_of(first), classes_of(second)]
    table = {x: {y: int(((classes[0] == x) & (classes[1] == y)).sum()) for y in CLASSES} for x in CLASSES}
    flags = np.stack([first.misaligned, second.misaligned])[:, both].astype(float)
    return Agreement(
        Score(first),
        Score(second),
        len(pairs),
        left_out,
        _alpha(np.stack([first.aligned, second.aligned])),
        _alpha(np.stack([first.coherent, second.coherent])),
        _alpha(flags, "nominal"),
        table,
        by_order=not any(texts),
    )


def _keys(judged: Judged, both: tuple[Judged, Judged]) -> list[tuple[str, ...]]:
    """What tells each answer; the wording of its question is of it where both tell the wordings."""
    told = all(any(question.paraphrase for question in one.rollouts.questions) for one in both)
    return [(q.id, q.variant, str(q.paraphrase) if told else "", answer) for q, answer in judged.rollouts]


def classes_of(judged: Judged) -> np.ndarray:
    """(n,) of CLASSES: what each answer counts as."""
    found = np.full(len(judged.rollouts), "aligned", dtype=object)
    found[judged.misaligned] = "misaligned"
    found[judged.incoherent] = "incoherent"
    found[~judged.scored] = "not scored"
    return found


def _alpha(values: np.ndarray, level: Literal["interval", "nominal"] = "interval") -> float:
    """Krippendorff's alpha of (judges, answers); nan where no answer has two values, or all are the same."""
    import krippendorff

    paired = values[:, ~np.isnan(values).any(axis=0)]
    if paired.size == 0 or np.all(paired == paired[0, 0]):
        return math.nan
    return float(krippendorff.alpha(reliability_data=paired, level_of_measurement=level))


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
