"""The area under the ROC curve, with an interval that knows that rows of one question, or one model, are alike."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from emlab.errors import EmlabError
from emlab.evaluation.intervals import student


@dataclass(frozen=True)
class Auroc:
    """How often a positive scores above a negative (ties count half), with its 95% interval; 0.5 is chance."""

    auroc: float
    low: float
    high: float
    n: int
    """Observations, positives and negatives together."""
    positives: int

    @property
    def missing(self) -> str:
        """Why there is no area: nothing of one of the two kinds. Empty where there is one."""
        if not math.isnan(self.auroc):
            return ""
        kind = "there is nothing to tell apart" if not self.n else f"all {self.n} are of one kind, "
        which = "" if not self.n else "positive" if self.positives else "negative"
        return f"could not be measured: {kind}{which}"

    @property
    def shown(self) -> str:
        """The area alone, or why there is none."""
        return self.missing or f"{self.auroc:.3f}"

    @property
    def ends(self) -> str:
        """The interval, or why there is none."""
        if math.isnan(self.low):
            return "(no interval: one kind is of one group, or none was asked for)"
        return f"[{self.low:.3f}, {self.high:.3f}]"

    def __str__(self) -> str:
        if self.missing:
            return f"AUROC {self.missing}"
        return f"AUROC {self.auroc:.3f} {self.ends} of {self.n} ({self.positives} positive)"


def auroc(scores: ArrayLike, labels: ArrayLike, *groups: Sequence[Hashable]) -> Auroc:
    """AUROC of `scores` for `labels`, with its 95% interval; nan of one label only.

    Its variance is the jackknife's over whole groups, with two kinds of groups put together as for rates (see
    `emlab.evaluation.intervals`). The interval is Newcombe's (2006, method 5), by Student's t, for as many independent
    observations as would have that variance, and it always has the end that it would have if the groups, each as one
    observation, were told apart without an error: groups that are told apart are few, however many rows they have.

    Args:
        scores: (n,), larger for what is more likely positive.
        labels: (n,) bool.
        groups: What is drawn as a whole, one or two kinds, of each the group of every row: its question, or also its
            model where labels are of models. Without any, or where there is one group, rows are independent. The ends
            are nan where the positive or the negative rows are all of one group.
    """
    values, positive = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    if len(groups) > 2:
        raise EmlabError(f"An AUROC's interval is over two kinds of groups at most, not {len(groups)}; name fewer.")
    if np.isnan(values).any():
        raise EmlabError("A score is not a number, so rows cannot be ranked by it; leave the row out.")
    n, ones = len(values), int(positive.sum())
    if ones in (0, n):
        return Auroc(math.nan, math.nan, math.nan, n, ones)
    sides = [np.unique(np.array([str(g) for g in kind]), return_inverse=True)[1] for kind in groups]
    sides = [of for of in sides if of.max() > 0] or [np.arange(n)]
    area = float(_above(values[positive], values[~positive]).sum()) / (ones * (n - ones))
    kinds = [min(len(np.unique(of[kind])) for of in sides) for kind in (positive, ~positive)]
    if min(kinds) < 2:
        return Auroc(area, math.nan, math.nan, n, ones)
    variances = [_jackknife(values, positive, of) for of in sides]
    variance = variances[0]
    if len(sides) == 2:
        cells = _jackknife(values, positive, sides[0] * (sides[1].max() + 1) + sides[1])
        variance = max(sum(variances) - cells, *variances)
    low = high = area
    if variance > 0 and 0 < area < 1:
        # As many positives and negatives, in their proportion, as give this variance: a quadratic equation in 1 / c.
        share = 3 / ((2 - area) * (1 + area))
        a, b = (2 - share) * n / 2, share - 1
        c = variance * ones * (n - ones) / (area * (1 - area))
        fewer = (math.sqrt(a * a + 4 * b * c) - a) / (2 * b)
        low, high = _newcombe(area, ones / fewer, (n - ones) / fewer, student(min(kinds) - 1))
    perfect, _ = _newcombe(1.0, kinds[0], kinds[1], student(math.inf))
    return Auroc(area, min(low, perfect), max(high, 1 - perfect), n, ones)


def _above(these: np.ndarray, those: np.ndarray) -> np.ndarray:
    """Of each of these, how many of those are below it, ties half."""
    ranked = np.sort(those)
    return (np.searchsorted(ranked, these, "left") + np.searchsorted(ranked, these, "right")) / 2


def _jackknife(values: np.ndarray, positive: np.ndarray, of: np.ndarray) -> float:
    """The variance of the area, from leaving each group out in turn."""
    groups, of = np.unique(of, return_inverse=True)
    k, ones, zeros = len(groups), of[positive], of[~positive]
    above, below = _above(values[positive], values[~positive]), _above(-values[~positive], -values[positive])
    pairs = above.sum() - np.bincount(ones, above, k) - np.bincount(zeros, below, k)
    for group in np.intersect1d(ones, zeros):  # their own pairs were taken away twice
        own = of == group
        pairs[group] += _above(values[own & positive], values[own & ~positive]).sum()
    rest = (len(ones) - np.bincount(ones, minlength=k)) * (len(zeros) - np.bincount(zeros, minlength=k))
    area = above.sum() / (len(ones) * len(zeros))
    moved = np.divide(pairs, rest, out=np.full(k, area), where=rest > 0) - area
    return float((moved**2).sum()) * (k - 1) / k


def _newcombe(area: float, ones: float, zeros: float, t: float) -> tuple[float, float]:
    """The areas from which this one is `t` standard errors away, for so many positives and negatives."""
    from scipy.optimize import brentq

    def away(true: float) -> float:
        n, share = (ones + zeros) / 2, (2 - true) * (1 + true)
        spread = true * (1 - true) * (2 * n - 1 - (3 * n - 3) / share) / (ones * zeros)
        return abs(area - true) - t * math.sqrt(max(0.0, spread))

    return (
        float(brentq(away, 0, min(area, 1 - 1e-9))) if area > 0 else 0.0,
        float(brentq(away, max(area, 1e-9), 1)) if area < 1 else 1.0,
    )


def roc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curves of many resamples at once, which scikit-learn draws one by one.

    Args:
        scores: (n,), larger for what is more likely positive.
        positive: (n,) bool.
        weights: (resamples, n), how often each row was drawn; each resample has rows of both kinds.

    Returns:
        The true and the false positive rates, (resamples, thresholds + 1) each, from 0 to 1.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(scores[order][1:] != scores[order][:-1]), len(scores) - 1)  # of equal scores
    start = np.zeros((len(weights), 1))
    ones, zeros = (
        np.hstack([start, np.cumsum(weights[:, order] * kind[order], axis=1)[:, last]])
        for kind in (positive, ~positive)
    )
    return ones / ones[:, -1:], zeros / zeros[:, -1:]
