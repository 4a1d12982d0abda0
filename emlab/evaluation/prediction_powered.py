"""Prediction-powered inference: a rate from a cheap judge's verdicts on all answers and gold labels of some of them.

The cheap judge's rate of all answers is corrected by what its verdicts and the gold labels differ by on those that have
both (Angelopoulos, Bates, Fannjiang, Jordan and Zrnic 2023). How far its verdicts count is tuned so that the variance
is least, from 0, gold labels alone, to 1 (PPI++: Angelopoulos, Duchi and Zrnic 2023): that of drawing the gold labels
at random from the answers, however alike these are. A rate is a ratio of two sums, both as each judge has them, so what
is corrected is its estimating equation, sum(numerator − rate × denominator) = 0.

Published code (ppi_py) has intervals of independent answers. Those to one question are alike, so here the variance is
the jackknife's over clusters, each left out in turn and the tuning done anew, and the interval that of other rates
(`emlab.evaluation.intervals`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emlab.evaluation.intervals import Share, student
from emlab.evaluation.rates import NO_RATE, Rate

PERMUTATIONS = 2000


class Counts(NamedTuple):
    """A rate's numerator and denominator."""

    hits: np.ndarray
    """(n,) bool: whether an answer counts; all that do are of those that the rate is of."""
    of: np.ndarray
    """(n,) bool: whether it is one of those that the rate is of."""


def prediction_powered_rate(
    cheap: Counts, gold: Counts, labelled: np.ndarray, clusters: np.ndarray
) -> tuple[Rate, float]:
    """The rate that the gold labels would give of all answers, and how far the cheap verdicts counted (0 to 1).

    There is none where fewer than two clusters have answers that the gold labels' rate is of.

    Args:
        cheap: Of all N answers, by the cheap judge.
        gold: Of the n answers that have gold labels.
        labelled: (n,) int: which of the N answers these are.
        clusters: (N,) int: the cluster of each answer.

    Returns:
        The rate, whose `n` is the gold labels that it is of; and the tuning.
    """
    some, ones = Counts(cheap.hits[labelled], cheap.of[labelled]), np.ones(len(clusters))
    products = [one & other for one in gold for other in some]
    of_labelled = _sums(clusters[labelled], *gold, *some, ones[labelled], *products, size=clusters.max() + 1)
    sums = np.vstack([of_labelled, _sums(clusters, *cheap, ones)])
    if (sums[1] > 0).sum() < 2:
        return NO_RATE, 0.0
    whole, of = sums.sum(1, keepdims=True), sums[1]
    (rate,), (tuning,) = _estimates(whole)
    value, (without, _) = float(np.clip(rate, 0, 1)), _estimates(whole - sums)
    # A rate at an end, or one that no cluster moves, does not show how alike answers are.
    variance = (len(without) - 1) * float(without.var()) * (0 < value < 1)
    share = Share(value, variance if variance > 1e-15 else 0.0, student((of > 0).sum() - 1), of.sum(), of)
    return Rate(value, *share.wilson(), int(share.n)), float(tuning)


def beyond_chance(
    values: np.ndarray, groups: np.ndarray, units: np.ndarray, blocks: np.ndarray, seed: int = 0
) -> float:
    """The p-value of the means of groups differing no more than if units stood in any of them: a permutation test.

    The statistic is the variance between groups, sum of n × (mean − mean of all)². The smallest p is 1 / 2001.

    Args:
        values: (n,) float, of answers.
        groups: (n,) int.
        units: (n,) int: what is permuted, whole; each stands in one group.
        blocks: (n,) int: units change places only with those of their block.
        seed: Of the permutations.
    """
    _, first, of = np.unique(units, return_index=True, return_inverse=True)
    centred, sizes = np.bincount(of, weights=values - values.mean()), np.bincount(of)
    group, block = groups[first], blocks[first]

    def between(places: np.ndarray) -> float:
        sums = np.bincount(places, weights=centred)
        return float((sums**2 / np.maximum(np.bincount(places, weights=sizes), 1)).sum())

    rng, found = np.random.default_rng(seed), between(group)
    order, drawn = np.lexsort((np.arange(len(group)), block)), np.empty_like(group)
    as_far = 0
    for _ in range(PERMUTATIONS):
        drawn[np.lexsort((rng.random(len(group)), block))] = group[order]
        as_far += between(drawn) >= found * (1 - 1e-9)
    return (1 + as_far) / (1 + PERMUTATIONS)


def _sums(clusters: np.ndarray, *values: np.ndarray, size: int = 0) -> np.ndarray:
    """(values, clusters) float: the sum of each in each cluster."""
    return np.stack([np.bincount(clusters, weights=value, minlength=size) for value in values])


def _estimates(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corrected rate and the tuning, from (12, sets) sums over the clusters of a set, of several sets at a time."""
    hits, of, some_hits, some_of, n, hits_hits, hits_of, of_hits, of_of, all_hits, all_of, total = sums
    rate = hits / of
    # Of numerator − rate × denominator: by gold and by the judge together (gold's mean is 0), and the judge's variance.
    both = (hits_hits - rate * (hits_of + of_hits) + rate**2 * of_of) / n
    own = (all_hits * (1 - 2 * rate) + rate**2 * all_of) / total - ((all_hits - rate * all_of) / total) ** 2
    tuning = np.clip(np.divide(both, own, out=np.zeros_like(own), where=own > 1e-12), 0, 1)
    top = hits / n + tuning * (all_hits / total - some_hits / n)
    bottom = of / n + tuning * (all_of / total - some_of / n)
    # Few gold labels may be corrected to a rate of nothing at all: they then stand alone.
    return np.divide(top, bottom, out=rate.copy(), where=bottom > 0), np.where(bottom > 0, tuning, 0.0)
