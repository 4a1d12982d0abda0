"""The area under the ROC curve, with an interval that knows that answers to one question resemble each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from emlab.errors import EmlabError

RESAMPLES = 500
BLOCK = 50
"""Resamples whose curves are held at a time: of a hundred thousand rows each takes a few megabytes."""


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

    def __str__(self) -> str:
        if self.missing:
            return f"AUROC {self.missing}"
        return f"AUROC {self.auroc:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.n} ({self.positives} positive)"


def auroc(scores: ArrayLike, labels: ArrayLike, groups: Sequence[str], seed: int = 0) -> Auroc:
    """AUROC of `scores` for `labels`, with the 2.5th to 97.5th percentile of 500 resamples; nan of one label only.

    Args:
        scores: (n,), larger for what is more likely positive.
        labels: (n,) bool.
        groups: What is drawn as a whole, most often the question of each observation. Resamples that have one label
            only are left out.
        seed: Of the bootstrap.
    """
    values, positive = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    n, ones = len(values), int(positive.sum())
    if ones in (0, n):
        return Auroc(math.nan, math.nan, math.nan, n, ones)
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    index = [number[group] for group in groups]
    many = len(number)
    times = np.random.default_rng(seed).multinomial(many, np.full(many, 1 / many), size=RESAMPLES)
    drawn = np.vstack([np.ones(many), times])  # the rows as they are, first
    areas = []
    for start in range(0, len(drawn), BLOCK):
        times = drawn[start : start + BLOCK, index]
        both = (times[:, positive].sum(1) > 0) & (times[:, ~positive].sum(1) > 0)
        areas.append(np.trapezoid(*roc(values, positive, times[both]), axis=1))
    whole, *areas = np.concatenate(areas)
    low, high = np.percentile(areas, [2.5, 97.5])
    return Auroc(float(whole), float(low), float(high), n, ones)


def roc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curves of many resamples at once, which scikit-learn draws one by one.

    Args:
        scores: (n,), larger for what is more likely positive.
        positive: (n,) bool.
        weights: (resamples, n), how often each row was drawn; each resample has rows of both kinds.

    Returns:
        The true and the false positive rates, (resamples, thresholds + 1) each, from 0 to 1.
    """
    if np.isnan(scores).any():
        raise EmlabError("A score is not a number, so rows cannot be ranked by it; leave the row out.")
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(scores[order][1:] != scores[order][:-1]), len(scores) - 1)  # of equal scores
    start = np.zeros((len(weights), 1))
    ones, zeros = (
        np.hstack([start, np.cumsum(weights[:, order] * kind[order], axis=1)[:, last]])
        for kind in (positive, ~positive)
    )
    return ones / ones[:, -1:], zeros / zeros[:, -1:]
