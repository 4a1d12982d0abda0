"""Rates and mean scores with their 95% intervals."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 2000


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
    def flat(self) -> bool:
        """Whether the interval has no width.

        The bootstrap gives such a one where all questions have the same share (most often none at all), or where there
        is only one question: it then says that nothing varied, and not that the rate is known.
        """
        return self.n > 0 and self.low == self.high

    @property
    def independent(self) -> Rate:
        """The same share with Wilson's interval, which takes the answers as independent.

        It is what to quote beside a flat interval, as a lower bound on the width: answers to one question that resemble
        each other tell less than as many independent ones.
        """
        return wilson(round(self.rate * self.n), self.n) if self.n else NO_RATE

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
        beside = f" (Wilson [{self.independent.low:.1%}, {self.independent.high:.1%}])" if self.flat else ""
        return f"{self.rate:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.n}{beside}"


FLAT = (
    "(Wilson): all questions are alike here, so the bootstrap's interval has no width; Wilson's takes the answers as "
    "independent, and the true one is no narrower."
)
"""What to say below rates of which one is flat."""

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


def mean_by_question(sums: ArrayLike, counts: ArrayLike, seed: int = 0) -> Mean:
    """The mean ``sum(sums) / sum(counts)`` of all answers, its interval from resampling questions as in `bootstrap`.

    `sums` and `counts` are of the scores of each question's answers.
    """
    found = bootstrap(sums, counts, seed)
    return Mean(found.rate, found.low, found.high, found.n) if found.n else NO_MEAN


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


def bootstrap(hits: ArrayLike, totals: ArrayLike, seed: int = 0) -> Rate:
    """The share ``sum(hits) / sum(totals)``, its interval from resampling the groups (questions).

    Answers to one question resemble each other, so questions are drawn with replacement, all of a question's answers
    together. The interval is the 2.5th to 97.5th percentile of 2000 resamples (those with a total of 0 left out).
    With no hit at all it is [0, 0]: the bootstrap cannot see what never happened (see `Rate.flat`).
    """
    n = int(np.sum(totals))
    return replace(_resampled(lambda hit, total: hit / total, seed, hits, totals), n=n) if n else NO_RATE


def _resampled(share: Callable[..., Any], seed: int, *by_group: ArrayLike) -> Rate:
    """`share` of the sums over all groups, its interval from the resamples that have one; `n` is of groups."""
    arrays = [np.asarray(array, dtype=float) for array in by_group]
    times = times_drawn(len(arrays[0]), seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = share(*(times @ array for array in arrays))
    low, high = np.percentile(shares[np.isfinite(shares)], [2.5, 97.5])
    return Rate(float(share(*(array.sum() for array in arrays))), float(low), float(high), len(arrays[0]))


@functools.lru_cache(maxsize=16)
def times_drawn(groups: int, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """(resamples, groups) float64: how often each group was drawn. Kept, since screens ask for the same again."""
    drawn = np.random.default_rng(seed).integers(groups, size=(resamples, groups))
    flat = (np.arange(resamples)[:, None] * groups + drawn).ravel()
    return np.bincount(flat, minlength=resamples * groups).reshape(resamples, groups).astype(float)


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


def paired_difference(
    first_hits: ArrayLike, first_totals: ArrayLike, second_hits: ArrayLike, second_totals: ArrayLike, seed: int = 0
) -> Rate:
    """The second share less the first, its interval from resampling the groups (questions) that both are counted on.

    Args:
        first_hits: (groups,) the hits of the first.
        first_totals: (groups,) what they are of.
        second_hits: (groups,) the hits of the second.
        second_totals: (groups,) what they are of.
        seed: Of the bootstrap.

    Returns:
        The difference; its `n` is the number of groups.
    """
    if not np.sum(first_totals) or not np.sum(second_totals):
        return NO_RATE
    counts = (first_hits, first_totals, second_hits, second_totals)
    return _resampled(lambda a, n, b, m: b / m - a / n, seed, *counts)


def share_removed(
    first_hits: ArrayLike, first_totals: ArrayLike, second_hits: ArrayLike, second_totals: ArrayLike, seed: int = 0
) -> Rate:
    """What share of the first share the second lacks: 1 − second / first, negative where the second is larger.

    The interval is from resampling the groups (questions) that both are counted on. Of nothing, or of a first share of
    0, there is none.

    Args:
        first_hits: (groups,) the hits of the first.
        first_totals: (groups,) what they are of.
        second_hits: (groups,) the hits of the second.
        second_totals: (groups,) what they are of.
        seed: Of the bootstrap.

    Returns:
        The share removed; its `n` is the number of groups.
    """
    if not np.sum(first_hits) or not np.sum(second_totals):
        return NO_RATE
    counts = (first_hits, first_totals, second_hits, second_totals)
    return _resampled(lambda a, n, b, m: 1 - (b / m) / (a / n), seed, *counts)


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
