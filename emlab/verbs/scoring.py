"""Score judgements or labels that are there; compare two models, or two judges.

What `emlab score` and `emlab judge compare` call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.evaluation import Difference, Score, Thresholds, compare, score_judged
from emlab.evaluation.agreement import Agreement, agreement
from emlab.evaluation.calibration import Calibration, calibration
from emlab.evaluation.gold_labels import Sheet
from emlab.evaluation.judges import read_judged, read_labelled, tables
from emlab.evaluation.judges.recorded import judged_in
from emlab.evaluation.judges.table_files import file_in
from emlab.evaluation.judging import Judged
from emlab.evaluation.label_shares import LabelShares
from emlab.evaluation.labelling import Labelled
from emlab.evaluation.scoring import Clusters
from emlab.evaluation.trait_scores import TraitScore, traits_in, traits_of


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of the groups of a file; one group where it was not grouped."""

    groups: Mapping[str, Score | Calibration]
    grouped: bool = False
    """Whether the file was grouped by a column."""

    def summary(self) -> dict[str, Any]:
        """The figures, of groups those of each by name."""
        if not self.grouped:
            return next(iter(self.groups.values())).summary()
        return {name: score.summary() for name, score in self.groups.items()}

    def __str__(self) -> str:
        return "\n".join(str(score) for score in self.groups.values())


def score_file(
    file: str | Path,
    by: str | None = None,
    misaligned_below: float | None = None,
    coherent_above: float | None = None,
    traits: Sequence[str] = (),
    clusters: Clusters = "own",
) -> Scores | TraitScore:
    """The rates of judged answers in anyone's file (see `read_judged`), in groups by the column `by`.

    Intervals are over questions, or with `clusters` "domain" over their domains.

    A log of Inspect (.eval) is read too. Of a table without the column aligned that scores known traits, or where
    `traits` names their columns, the mean scores of these are given.
    """
    limits, path = _limits(misaligned_below, coherent_above), artifacts.place(file)
    if path.suffix == ".eval":
        if by is not None or traits:
            raise EmlabError(f"{file} is a log of Inspect and has no columns; leave out --by and --trait.")
        return Scores({path.stem: score_judged(_only(file, limits), clusters)})
    table = tables.read(file_in(path) if path.is_dir() else path)
    if traits or not table.has("aligned") and traits_in(table):
        if by is not None or limits is not None or clusters != "own":
            raise EmlabError(
                "A score of traits has neither groups, clusters nor thresholds; leave out --by, --clusters and the "
                "thresholds."
            )
        return traits_of(table, traits)
    found = {name: score_judged(judged, clusters) for name, judged in judged_in(table, by, limits).items()}
    return Scores(found, grouped=by is not None)


def score_against(
    file: str | Path,
    against: str | Path,
    misaligned_below: float | None = None,
    coherent_above: float | None = None,
    clusters: Clusters = "own",
) -> Difference:
    """How much more often the model of `against` is misaligned than that of `file`, on the questions of both."""
    limits = _limits(misaligned_below, coherent_above)
    one, two = (score_judged(_only(path, limits), clusters) for path in (file, against))
    return compare(one, two)


def score_with_gold(
    file: str | Path,
    gold: str | Path,
    by: str | None = None,
    clusters: Clusters = "own",
    misaligned_below: float | None = None,
    coherent_above: float | None = None,
) -> Scores:
    """The rates of a cheap judge's file, corrected by gold labels of some of its answers (see `emlab.corrected`).

    In groups by the column `by`, or by domain, variant or model where there is no such column; `clusters` is
    what intervals are over.
    """
    limits = _limits(misaligned_below, coherent_above)
    cheap, labels = (Sheet.of(path, str(path), limits) for path in (file, gold))
    found = calibration(cheap, labels, clusters)
    if by is None:
        return Scores({found.cheap.rollouts.model: found})
    if any(by in row for row in cheap.rows):
        return Scores(found.split(np.array([str(row.get(by)) for row in cheap.rows]), by), grouped=True)
    return Scores(found.grouped(by), grouped=True)


def label_file(file: str | Path) -> LabelShares:
    """The shares of the labels in anyone's JSONL or CSV of labelled answers (see `read_labelled`)."""
    return LabelShares(_labelled(file))


def compare_judges(first: str | Path, second: str | Path) -> Agreement:
    """How far the judgements in two files agree, which are of the same answers."""
    one, two = (_only(path) for path in (first, second))
    return agreement(one, two)


def _limits(misaligned_below: float | None, coherent_above: float | None) -> Thresholds | None:
    """The thresholds, of which those that are not given are the usual ones; None where neither is given."""
    given = {"misaligned_below": misaligned_below, "coherent_above": coherent_above}
    found = {name: value for name, value in given.items() if value is not None}
    return Thresholds(**found) if found else None


def _only(path: str | Path, thresholds: Thresholds | None = None) -> Judged:
    if Path(path).suffix == ".eval":
        from emlab.evaluation.inspect_log import read_inspect_log

        return read_inspect_log(path, thresholds)
    (judged,) = read_judged(path, thresholds=thresholds).values()
    return judged


def _labelled(path: str | Path) -> Labelled:
    if Path(path).suffix == ".eval":
        from emlab.evaluation.inspect_log import read_inspect_labels

        return read_inspect_labels(path)
    return read_labelled(path)
