"""The area under the ROC curve, with an interval that knows that answers to one question resemble each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 500


@dataclass(frozen=True)
class Auroc:
    """How often a positive scores above a negative (ties count half), with its 95% interval; 0.5 is chance."""

    auroc: float
    low: float
    high: float
    n: int
    """Observations, positives and negatives together."""
    positives: int

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Auroc:
        """The area that was written as JSON, where nan is null."""
        values: dict[str, Any] = {k: math.nan if v is None else v for k, v in raw.items()}
        return cls(**values)

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
    """AUROC of `scores` (n,) for `labels` (n,) bool; the interval resamples `groups`, the question of each observation.

    NaN where all labels are the same. The interval is the 2.5th to 97.5th percentile of 500 resamples, those with one
    label only left out.
    """
    from scipy.stats import rankdata

    values, positive = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)

    def area(s: np.ndarray, p: np.ndarray) -> float:
        ones, zeros = int(p.sum()), int((~p).sum())
        if not ones or not zeros:
            return math.nan
        return float((rankdata(s)[p].sum() - ones * (ones + 1) / 2) / (ones * zeros))

    whole = area(values, positive)
    if math.isnan(whole):
        return Auroc(math.nan, math.nan, math.nan, len(values), int(positive.sum()))
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    index = [np.array(m) for m in members.values()]
    rng = np.random.default_rng(seed)
    areas = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([index[i] for i in rng.integers(len(index), size=len(index))])
        areas.append(area(values[drawn], positive[drawn]))
    low, high = np.nanpercentile(areas, [2.5, 97.5])
    return Auroc(whole, float(low), float(high), len(values), int(positive.sum()))
