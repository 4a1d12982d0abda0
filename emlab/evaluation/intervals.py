"""95% intervals of rates, means, differences and ratios of rates, from clusters of answers that resemble each other.

Answers to one question are alike, so are the questions of one domain, and all answers of one fine-tune. So counts come
by cluster: (G,) of the clusters of questions, or (S, G) of S fine-tunes that were asked the same. What varies is the
highest level that the data have on each side: domains or else questions, and organisms or else fine-tunes.

The variance is the jackknife's over whole clusters, each left out in turn (of the cluster-robust ones the most reliable
where clusters are few: MacKinnon, Nielsen and Webb 2023). With two sides it is that of the one, plus that of the other,
less that of their cells (Cameron, Gelbach and Miller 2011), and never less than of either. Its degrees of freedom are
Satterthwaite's (clusters less one, where there is one side). A rate has Wilson's interval, with Student's t in place of
the normal, for as many independent answers as would have that variance (Dean and Pagano 2015). A difference and a ratio
of rates are put together from those of both and their correlation (Zou and Donner 2008; Donner and Zou 2012).

Where hits are rare the clusters that would show how they differ may be among those not drawn. So no interval ends
before the largest share of which none would be seen in 2.5% of draws, if answers of a cluster were as alike as `ALIKE`.

The percentiles of a bootstrap are too narrow where clusters are few: of 10 they hold the truth in 90%.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from emlab.evaluation.rates import NO_MEAN, NO_RATE, Mean, Rate

ALIKE = 0.5
"""The intraclass correlation that is assumed where there is too little to estimate one from. Domains of the organism's
fine-tunes have 0.03 to 0.7, the less the rarer the hits. With it, too, the truth is held less often than the interval
says where rare hits come in few of the clusters (docs/interval_coverage.json: how often, by simulation)."""


class Share(NamedTuple):
    """A ratio of sums, and how well it is known."""

    value: float
    variance: float
    t: float
    """Student's 97.5th percentile."""
    n: float
    """The sum that it is of."""
    clusters: np.ndarray
    """How many each cluster has of these; empty where there is one cluster only."""

    def wilson(self) -> tuple[float, float]:
        """The interval of a share."""
        p, t = self.value, self.t
        n = p * (1 - p) / self.variance if self.variance > 0 else self.n
        middle, half = (p + t * t / (2 * n)), t * math.sqrt(p * (1 - p) / n + t * t / (4 * n * n))
        low, high = ((middle + side * half) / (1 + t * t / n) for side in (-1, 1))
        low, high = min(p, max(0.0, low)), max(p, min(1.0, high))
        if len(self.clusters) and self._seldom_none(min(high, 1 - low)) > 0:
            from scipy.optimize import brentq

            most = float(brentq(self._seldom_none, 1e-9, 1 - 1e-9))
            low, high = min(low, 1 - most), max(high, most)
        return low, high

    def _seldom_none(self, share: float) -> float:
        """The logarithm of how likely no hit is in any cluster (beta-binomial), less that of 2.5%."""
        from scipy.special import betaln

        a, b = np.clip([share, 1 - share], 1e-9, None) * (1 / ALIKE - 1)
        return float((betaln(a, b + self.clusters) - betaln(a, b)).sum() - math.log(0.025))


def clustered_rate(hits: ArrayLike, totals: ArrayLike) -> Rate:
    """The share ``sum(hits) / sum(totals)`` of answers, with its interval from the clusters.

    Of one cluster the answers are taken as independent.

    Args:
        hits: (G,) of clusters of questions, or (S, G) of fine-tunes and clusters: how many answers count.
        totals: The same shape: how many they are of; 0 where a fine-tune or a cluster has none.
    """
    if not np.sum(totals):
        return NO_RATE
    ((share,), _) = _jackknife((hits, totals))
    return Rate(share.value, *share.wilson(), int(share.n))


def clustered_mean(sums: ArrayLike, counts: ArrayLike) -> Mean:
    """The mean ``sum(sums) / sum(counts)`` of scores from 0 to 100, with its interval from the clusters.

    Args:
        sums: (G,) or (S, G): of the scores of each cluster's answers.
        counts: The same shape: how many scores.
    """
    if not np.sum(counts):
        return NO_MEAN
    ((mean,), _) = _jackknife((sums, counts))
    half = mean.t * math.sqrt(mean.variance)
    return Mean(mean.value, max(0.0, mean.value - half), min(100.0, mean.value + half), int(mean.n))


def paired_difference(
    first_hits: ArrayLike, first_totals: ArrayLike, second_hits: ArrayLike, second_totals: ArrayLike
) -> Rate:
    """The second share less the first, counted on the same clusters.

    Args:
        first_hits: (G,) or (S, G): the hits of the first.
        first_totals: What they are of; 0 in the rows of fine-tunes that only the second is of.
        second_hits: The hits of the second.
        second_totals: What they are of.

    Returns:
        The difference; its `n` is the number of clusters of questions.
    """
    if not np.sum(first_totals) or not np.sum(second_totals):
        return NO_RATE
    (a, b, difference), _ = _jackknife((first_hits, first_totals), (second_hits, second_totals))
    (a_low, a_high), (b_low, b_high) = a.wilson(), b.wilson()
    found = b.value - a.value
    if a.variance > 0 and b.variance > 0:
        below = above = difference.t * math.sqrt(difference.variance)
    else:
        below, above = math.hypot(b.value - b_low, a_high - a.value), math.hypot(b_high - b.value, a.value - a_low)
    return Rate(found, max(-1.0, found - below), min(1.0, found + above), np.shape(first_hits)[-1])


def share_removed(
    first_hits: ArrayLike, first_totals: ArrayLike, second_hits: ArrayLike, second_totals: ArrayLike
) -> Rate:
    """What share of the first share the second lacks: 1 − second / first, negative where the second is larger.

    Of nothing, or of a first share of 0, there is none.

    Args:
        first_hits: (G,) or (S, G): the hits of the first.
        first_totals: What they are of.
        second_hits: The hits of the second.
        second_totals: What they are of.

    Returns:
        The share removed; its `n` is the number of clusters of questions. The lower end is −inf where the first share
        may be 0.
    """
    if not np.sum(first_hits) or not np.sum(second_totals):
        return NO_RATE
    (a, b, _), r = _jackknife((first_hits, first_totals), (second_hits, second_totals))
    (a_low, a_high), (b_low, b_high) = a.wilson(), b.wilson()
    low = _ratio(b.value, b_low, a.value, a_high, r, -1)
    high = _ratio(b.value, b_high, a.value, a_low, r, 1)
    return Rate(1 - b.value / a.value, 1 - high, min(1.0, 1 - low), np.shape(first_hits)[-1])


def _ratio(top: float, top_end: float, bottom: float, bottom_end: float, r: float, side: int) -> float:
    """An end of the interval of top / bottom, from the ends of each (Donner and Zou 2012, equation 9)."""
    middle = top * bottom - r * (top - top_end) * (bottom_end - bottom)
    a, b = top_end * (2 * top - top_end), bottom_end * (2 * bottom - bottom_end)
    if b <= 0:
        return math.inf if side > 0 else 0.0
    return (middle + side * math.sqrt(max(0.0, middle**2 - a * b))) / b


def _jackknife(*counts: tuple[ArrayLike, ArrayLike]) -> tuple[list[Share], float]:
    """Each share of hits and totals; of two also the second less the first, and the correlation of the two (else 0)."""
    tables = [(np.atleast_2d(np.asarray(h, float)), np.atleast_2d(np.asarray(n, float))) for h, n in counts]
    sides = [_left_out([(h.sum(1 - axis), n.sum(1 - axis)) for h, n in tables]) for axis in (0, 1)]
    cells, _ = _left_out([(h.ravel(), n.ravel()) for h, n in tables])
    cells *= np.all([clusters > 1 for _, clusters in sides], axis=0)[:, None]
    values, totals = [float(h.sum() / n.sum()) for h, n in tables], [float(n.sum()) for _, n in tables]
    moved, degrees = [moves for moves, _ in sides], np.array([clusters - 1 for _, clusters in sides])
    if len(tables) == 2:
        moved, cells = [_with_difference(moves) for moves in moved], _with_difference(cells)
        values, totals = [*values, values[1] - values[0]], [*totals, sum(totals)]
        degrees = np.column_stack([degrees, degrees.max(1)])
    covariance = sum(moves @ moves.T for moves in moved) - cells @ cells.T
    own = np.array([(moves**2).sum(1) for moves in moved])
    variance = np.maximum(covariance.diagonal(), own.max(0))
    sizes = [_sizes(n) for _, n in tables]
    shares = []
    for i, value in enumerate(values):
        parts = sum(own[side, i] ** 2 / degrees[side, i] for side in (0, 1) if own[side, i])
        freedom = variance[i] ** 2 / parts if parts else degrees[:, i].max() or math.inf
        shares.append(Share(value, float(variance[i]), student(freedom), totals[i], sizes[min(i, len(sizes) - 1)]))
    scale = math.sqrt(variance[0] * variance[1]) if len(tables) == 2 else 0.0
    return shares, float(np.clip(covariance[0, 1] / scale, -1, 1)) if scale > 0 else 0.0


def _sizes(totals: np.ndarray) -> np.ndarray:
    """Of each cluster of questions, else of each fine-tune; empty where there is one."""
    return next((side for side in (totals.sum(0), totals.sum(1)) if (side > 0).sum() > 1), np.zeros(0))


def _left_out(sums: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """How far each share moves without each cluster (shares, clusters), scaled so that the sum of squares is the
    jackknife's variance; and in how many clusters it has answers (shares,).

    A share all of whose answers stand in one cluster does not show how clusters differ, and does not move.
    """
    moved, many = [], []
    for hits, totals in sums:
        k, rest = int((totals > 0).sum()), totals.sum() - totals
        share = np.divide(hits.sum() - hits, rest, out=np.zeros_like(rest), where=rest > 0)
        far = np.where(totals > 0, share - hits.sum() / totals.sum(), 0.0) * (k > 1)
        moved.append(np.where(np.abs(far) > 1e-12, far, 0.0) * math.sqrt((k - 1) / k))
        many.append(k)
    return np.array(moved), np.array(many)


def _with_difference(moved: np.ndarray) -> np.ndarray:
    return np.vstack([moved, moved[1] - moved[0]])


def student(freedom: float) -> float:
    """Student's 97.5th percentile."""
    from scipy.special import stdtrit

    return float(stdtrit(max(freedom, 1.0), 0.975))
