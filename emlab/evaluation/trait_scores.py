"""Scores of traits: how evil, sycophantic or apathetic answers are, from 0 to 100 (Chen et al. 2025, arXiv:2507.21509).

A trait is scored on a scale of its own, where more is more of it; it is no alignment, and there is no threshold.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.evaluation.intervals import clustered_mean
from emlab.evaluation.judges import tables
from emlab.evaluation.judges.recorded import LABELS
from emlab.evaluation.judges.table_files import file_in
from emlab.evaluation.judges.tables import Table
from emlab.evaluation.judging import Thresholds
from emlab.evaluation.rates import Mean, mean_of
from emlab.evaluation.rollouts import Rollouts
from emlab.notebook import Shown

TRAITS = (
    "evil",
    "sycophancy",
    "sycophantic",
    "hallucination",
    "hallucinating",
    "apathetic",
    "humorous",
    "impolite",
    "optimistic",
)
"""The traits of the persona vectors' authors, as their tables name them."""
COHERENT = "coherent"


@dataclass(frozen=True, eq=False, repr=False)
class TraitScore(Shown):
    """Mean scores of traits, and of coherence where it was judged. Intervals are over questions."""

    rollouts: Rollouts
    scores: Mapping[str, np.ndarray]
    """(n,) float, 0 to 100, by trait; nan where there is none. Also those of `coherent`, where they are known."""
    judge: str = ""

    @functools.cached_property
    def overall(self) -> Mapping[str, Mean]:
        """Of all answers with a score."""
        return self._means(np.ones(len(self.rollouts), dtype=bool))

    @functools.cached_property
    def of_coherent(self) -> Mapping[str, Mean]:
        """Of the answers more coherent than 50; empty where coherence was not judged."""
        if COHERENT not in self.scores:
            return {}
        found = self._means(self.scores[COHERENT] > Thresholds().coherent_above)
        return {name: mean for name, mean in found.items() if name != COHERENT}

    @functools.cached_property
    def by_question(self) -> Mapping[str, Mapping[str, Mean]]:
        """Of each question's answers, by its id; the intervals are Student's, of the answers to that question."""
        ids = np.array([question.id for question in self.rollouts.questions])
        return {
            name: {trait: mean_of(values[(ids == name) & ~np.isnan(values)]) for trait, values in self.scores.items()}
            for name in dict.fromkeys(ids.tolist())
        }

    def summary(self) -> dict[str, Any]:
        """The figures as plain values, for a JSON file."""
        return {
            "model": self.rollouts.model,
            "judge": self.judge,
            "total": len(self.rollouts),
            **_summaries(self.overall),
            "of_coherent": _summaries(self.of_coherent),
            "by_question": {name: _summaries(means) for name, means in self.by_question.items()},
        }

    def _means(self, chosen: np.ndarray) -> dict[str, Mean]:
        _, of = np.unique([question.id for question in self.rollouts.questions], return_inverse=True)

        def mean(values: np.ndarray) -> Mean:
            known = chosen & ~np.isnan(values)
            sums, counts = (np.bincount(of, x) for x in (np.where(known, values, 0.0), known))
            if (counts > 0).sum() == 1:  # of one question there are no others
                return mean_of(values[known])
            return clustered_mean(sums, counts)

        return {trait: mean(values) for trait, values in self.scores.items()}

    def __str__(self) -> str:
        by = f", scored by {self.judge}" if self.judge else ""
        width = max(map(len, self.scores))
        lines = [f"{self.rollouts.model}: {len(self.rollouts)} answers{by}; mean scores, 0 to 100"]
        for trait, mean in self.overall.items():
            coherent = self.of_coherent.get(trait)
            lines.append(f"  {trait:<{width}}  {mean}" + (f"; of the coherent {coherent}" if coherent else ""))
        return "\n".join(lines)


def read_traits(path: str | Path, traits: Sequence[str] = ()) -> TraitScore:
    """The trait scores in a table as `read_judged` takes it: the columns `traits`, or those of TRAITS that it has.

    EmlabError where there are none, where the rows are of two judges, and for a score that is none, naming its line.
    """
    path = artifacts.place(path)
    table = tables.read(file_in(path) if path.is_dir() else path)
    return traits_of(table, traits)


def traits_of(table: Table, traits: Sequence[str] = ()) -> TraitScore:
    """The trait scores in a table; as `read_traits`."""
    names = list(traits) or traits_in(table)
    if not names:
        raise EmlabError(
            f"{table.path} has none of the traits {', '.join(TRAITS)} among its columns "
            f"{', '.join(map(str, table.columns))}; name the columns that are meant."
        )
    table.need(*names)
    assert table.question is not None
    scores = {name: _scores(table, name) for name in [*names, *([COHERENT] if table.has(COHERENT) else [])]}
    tables.say_mixed(table.path, table.rows)
    rollouts = tables.rollouts_of(table.path, table.rows, table.question)
    return TraitScore(rollouts, scores, tables.only_judge(table.path, table.rows))


def traits_in(table: Table) -> list[str]:
    """Which of TRAITS a table has."""
    return [str(name) for name in table.columns if str(name).lower() in TRAITS]


def _scores(table: Table, name: str) -> np.ndarray:
    found = []
    for where, row in table.rows:
        cell = row.get(name)
        value = None if str(cell).strip().lower() in LABELS else tables.number_in(cell)
        if value is not None and not 0 <= value <= 100:
            raise EmlabError(f"{where}: {name} is {str(cell)[:40]!r}; write 0 to 100, REFUSAL, CODE, or nothing.")
        found.append(math.nan if value is None else value)
    return np.array(found)


def _summaries(means: Mapping[str, Mean]) -> dict[str, Any]:
    return {f"mean_{name}": mean.summary() for name, mean in means.items()}
