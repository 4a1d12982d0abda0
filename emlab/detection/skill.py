"""How well scores tell misaligned rows from others: AUROC, false positives at a recall, calibration, with intervals.

Rows of one fine-tune resemble each other, and so do rows of one question. The area's interval is that of
`emlab.detection.auroc`. For the others a bootstrap draws whole fine-tunes, and whole questions, at once: a row counts
as often as its fine-tune was drawn times as often as its question was (the pigeonhole bootstrap: Owen 2007,
arXiv:0712.1111, which is conservative).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from emlab.detection.auroc import Auroc, auroc, roc
from emlab.errors import EmlabError
from emlab.evaluation import Rate
from emlab.evaluation.rates import NO_RATE
from emlab.notebook import Shown

RESAMPLES = 500
LEAST = 5
"""Fewer fine-tunes, or questions, give no interval that is worth the name."""
BINS = 10


@dataclass(frozen=True, repr=False)
class Skill(Shown):
    """What scores are worth, with 95% intervals."""

    auroc: Auroc
    fpr95: Rate
    """The least share of others above a threshold that at least 95% of the misaligned rows reach."""
    fpr99: Rate
    """The same for 99%."""
    calibration_error: Rate
    """Expected calibration error of the probabilities, over ten bins of equal width; of nothing without them."""

    def __str__(self) -> str:
        error = "" if not self.calibration_error.n else f", calibration error {self.calibration_error.rate:.3f}"
        return f"{self.auroc}; false positives at 95% recall {self.fpr95.share}, at 99% {self.fpr99.share}{error}"


def skill(
    scores: np.ndarray,
    labels: np.ndarray,
    drawn: Mapping[str, Sequence[Hashable]],
    probabilities: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Skill:
    """How well `scores` tell misaligned rows from others. EmlabError where there are too few groups for an interval.

    Args:
        scores: (n,), larger for what is more likely misaligned.
        labels: (n,) bool, of both kinds.
        drawn: What is drawn as a whole, and of each such kind the group of every row: for example
            ``{"fine-tunes": […], "questions": […]}``.
        probabilities: (n,), for the calibration error.
        resamples: Of the bootstrap; without any, intervals are nan.
        seed: Of the bootstrap.
    """
    values, positive = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    if len(values) != len(positive) or len(np.unique(positive)) < 2:
        raise EmlabError("A skill needs scores of misaligned rows and of others; give both, a label for each.")
    if not np.isfinite(values).all():
        raise EmlabError("A score is not a number, so rows cannot be ranked by it; leave the row out.")
    weights = np.ones((1, len(values)))
    if resamples:
        times = np.ones((resamples, len(values)))
        rng = np.random.default_rng(seed)
        for what, groups in drawn.items():
            _, of = np.unique(np.array([str(g) for g in groups]), return_inverse=True)
            many = int(of.max()) + 1
            if many < LEAST:
                raise EmlabError(
                    f"There are {many} {what}, too few for an interval; give {LEAST} or more, or ask for none "
                    "(resamples=0)."
                )
            counts = rng.multinomial(many, np.full(many, 1 / many), size=resamples)
            times *= counts[:, of]
        both = times[:, positive].any(1) & times[:, ~positive].any(1)
        weights = np.concatenate([weights, times[both]])
    recall, false = roc(values, positive, weights)
    at95, at99 = (_interval(_false_positives(recall, false, least), len(values)) for least in (0.95, 0.99))
    error = NO_RATE
    if probabilities is not None:
        error = _interval(_calibration_error(np.asarray(probabilities, dtype=float), positive, weights), len(values))
    area = auroc(values, positive, *drawn.values())
    if not resamples:
        area = replace(area, low=math.nan, high=math.nan)
    return Skill(area, at95, at99, error)


def _false_positives(recall: np.ndarray, false: np.ndarray, least: float) -> np.ndarray:
    """(resamples,): the share of others above the highest threshold of this recall."""
    first = (recall >= least - 1e-12).argmax(1)
    return false[np.arange(len(false)), first]


def _calibration_error(p: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    bins = (p * BINS).astype(int).clip(max=BINS - 1)
    gap = sum(np.abs((weights[:, bins == b] * (p - positive)[bins == b]).sum(1)) for b in range(BINS))
    return np.asarray(gap / weights.sum(1))


def _interval(found: np.ndarray, n: int) -> Rate:
    """The first is of the rows as they are, the others of resamples."""
    if len(found) == 1:
        return Rate(float(found[0]), float("nan"), float("nan"), n)
    low, high = np.percentile(found[1:], [2.5, 97.5])
    return Rate(float(found[0]), float(low), float(high), n)
