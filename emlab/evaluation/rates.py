"""Rates and mean scores with their 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Rate:
    """A share with its 95% interval. Of nothing (n = 0) there is no rate: all three numbers are nan."""

    rate: float
    low: float
    high: float
    n: int
    """How many answers the share is of."""

    @classmethod
    def of(cls, raw: Mapping[str, float | None]) -> Rate:
        """The rate that was written as JSON, where nan is null."""
        return cls(**{k: math.nan if v is None else v for k, v in raw.items()})  # type: ignore[arg-type]

    @property
    def share(self) -> str:
        """The share alone, or that there is nothing it could be of."""
        return f"{self.rate:.1%}" if self.n else "no answers"

    @property
    def points(self) -> str:
        """A difference of shares, and its interval, in percentage points; a dash where there is none."""
        if not self.n:
            return "–"
        return f"{100 * self.rate:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}] points"

    def summary(self) -> dict[str, float | None]:
        """Rate, low and high as plain values; None of nothing."""
        values = (self.rate, self.low, self.high) if self.n else (None, None, None)
        return dict(zip(("rate", "low", "high"), values, strict=True))

    def __str__(self) -> str:
        if self.n == 0:
            return "no answers"
        return f"{self.rate:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.n}"


NO_RATE = Rate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Mean:
    """A mean of scores from 0 to 100 with its 95% interval. Of nothing (n = 0) all three numbers are nan."""

    mean: float
    low: float
    """nan, as `high` is, where the answers tell nothing of how they vary: of one."""
    high: float
    n: int
    """How many answers it is of."""

    def summary(self) -> dict[str, float | int | None]:
        """All four as plain values; None for nan."""
        values = {"mean": self.mean, "low": self.low, "high": self.high}
        return {**{name: None if math.isnan(value) else value for name, value in values.items()}, "n": self.n}

    def __str__(self) -> str:
        if self.n == 0:
            return "no scores"
        between = "" if math.isnan(self.low) else f" [{self.low:.1f}, {self.high:.1f}]"
        return f"{self.mean:.1f}{between} of {self.n}"


NO_MEAN = Mean(math.nan, math.nan, math.nan, 0)


def mean_of(values: ArrayLike) -> Mean:
    """The mean of independent scores, such as those of one question, with Student's interval within 0 to 100."""
    x = np.asarray(values, dtype=float)
    if not len(x):
        return NO_MEAN
    mean = float(x.mean())
    if len(x) == 1:
        return Mean(mean, math.nan, math.nan, 1)
    from scipy.special import stdtrit

    half = float(stdtrit(len(x) - 1, 0.975) * x.std(ddof=1) / math.sqrt(len(x)))
    return Mean(mean, max(0.0, mean - half), min(100.0, mean + half), len(x))


def wilson(hits: int, total: int, z: float = 1.959964) -> Rate:
    """The share ``hits / total`` of independent answers, such as those to one question, with Wilson's interval.

    `z` is its half-width in standard errors: 1.96 gives 95%.
    """
    if total == 0:
        return NO_RATE
    from scipy.special import ndtr
    from scipy.stats import binomtest

    found = binomtest(hits, total).proportion_ci(2 * ndtr(z) - 1, method="wilson")
    return Rate(hits / total, float(found.low), float(found.high), total)


def intraclass_correlation(values: ArrayLike, groups: ArrayLike) -> float:
    """How alike the values of one group are: ICC(1) from a one-way analysis of variance (Shrout and Fleiss 1979).

    `values` (n,) and `groups` (n,), the group of each. 1 where all values of a group agree and groups differ, 0 or
    less where groups tell nothing; unequal groups have the size n0 of Donner and Koval 1980. nan where no group has two
    values, there is one group only, or all values are equal.
    """
    x = np.asarray(values, dtype=float)
    _, of, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    k, n = len(sizes), len(x)
    if k < 2 or n == k or not x.size or np.all(x == x[0]):
        return math.nan
    means = np.bincount(of, weights=x, minlength=k) / sizes
    between = float((sizes * (means - x.mean()) ** 2).sum()) / (k - 1)
    within = float(((x - means[of]) ** 2).sum()) / (n - k)
    n0 = (n - (sizes**2).sum() / n) / (k - 1)
    return float((between - within) / (between + (n0 - 1) * within))
