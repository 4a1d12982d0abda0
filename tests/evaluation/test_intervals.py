"""Intervals over few clusters: by hand, against Student's paired test, and by how often they hold the truth."""

import math

import numpy as np
import pytest
from scipy.stats import betabinom, norm, ttest_1samp, ttest_rel

from emlab.evaluation.intervals import (
    _jackknife,
    _ratio,
    _sizes,
    clustered_mean,
    clustered_rate,
    paired_difference,
    share_removed,
)
from emlab.evaluation.rates import wilson


def ends(rate):
    return rate.low, rate.high


def test_the_sizes_of_clusters_are_those_of_questions_else_of_fine_tunes():
    assert _sizes(np.array([[1, 1, 1]])).tolist() == [1, 1, 1], "a question may have one answer"
    assert _sizes(np.array([[2, 1], [3, 4]])).tolist() == [5, 5]
    assert _sizes(np.array([[2, 0], [3, 0]])).tolist() == [2, 3], "of one question"
    assert _sizes(np.array([[7]])).tolist() == []


def test_a_rate_over_four_questions_by_hand():
    # Shares 1, 0, 0, 0: the variance of their mean is (0.75² + 3 · 0.25²) / 3 / 4 = 1/16, as of 0.1875 · 16 = 3
    # independent answers. Student's point of 3 degrees is 3.1824: the middle is 0.25 + 10.128 / 6 = 1.938, the half
    # width 3.1824 · √(0.0625 + 10.128 / 36) = 1.866, both over 1 + 10.128 / 3.
    found = clustered_rate([5, 0, 0, 0], [5, 5, 5, 5])
    assert (found.rate, found.n) == (0.25, 20) and ends(found) == pytest.approx((0.0164, 0.8693), abs=2e-4)


def test_a_rate_of_two_fine_tunes_and_two_domains_by_hand():
    # One of four answers. Without the row that has it the share moves by -1/4, without the other by 1/4: half of the
    # squares is 1/16, and so it is by column. Cell by cell it moves by -1/4 and three times by 1/12: 3/4 of the squares
    # is 1/16 too. 1/16 + 1/16 - 1/16 leaves 1/16, as of 3 answers; Satterthwaite's half a degree counts as one, 12.706.
    found = clustered_rate([[1, 0], [0, 0]], [[1, 1], [1, 1]])
    n, point = 3, 12.7062
    middle, half = 0.25 + point**2 / (2 * n), point * math.sqrt(0.1875 / n + point**2 / (4 * n**2))
    assert ends(found) == pytest.approx(((middle - half) / (1 + point**2 / n), (middle + half) / (1 + point**2 / n)))


def test_one_fine_tune_has_the_interval_of_its_questions():
    hits, totals = np.random.default_rng(0).binomial(8, 0.4, (1, 12)), np.full((1, 12), 8)
    assert clustered_rate(hits, totals) == clustered_rate(hits[0], totals[0])
    assert clustered_rate(hits.T, totals.T) == clustered_rate(hits[0], totals[0]), "nor does it matter which side it is"


def test_of_one_question_answers_are_independent():
    assert ends(clustered_rate([3], [8])) == pytest.approx(ends(wilson(3, 8)), abs=1e-6)
    assert ends(clustered_rate([0], [8])) == pytest.approx(ends(wilson(0, 8)), abs=1e-6)
    whole = clustered_rate([0, 2], [0, 4])
    assert (whole.rate, whole.n) == (0.5, 4) and ends(whole) == pytest.approx(ends(wilson(2, 4)), abs=1e-6)


@pytest.mark.parametrize("totals", [[20, 20, 20, 5], [[10, 12, 10, 2], [10, 8, 10, 3]]])
def test_of_no_hit_it_ends_where_none_would_be_seen_once_in_forty(totals):
    none, every = clustered_rate(np.zeros_like(totals), totals), clustered_rate(totals, totals)
    chances = betabinom.pmf(0, [20, 20, 20, 5], none.high, 1 - none.high)  # an intraclass correlation of a half
    assert chances.prod() == pytest.approx(0.025) and none.low == 0
    assert ends(every) == pytest.approx((1 - none.high, 1))
    one = clustered_rate(np.eye(1, np.size(totals))[0].reshape(np.shape(totals)), totals)
    assert one.high >= none.high, "it is no lower where there is a hit"


def test_a_mean_has_students_interval():
    values = np.random.default_rng(1).uniform(20, 80, 9)
    expected = ttest_1samp(values, 0).confidence_interval()
    found = clustered_mean(values * 3, [3] * 9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high)) and found.n == 27


def test_a_difference_has_students_paired_interval():
    hits = np.random.default_rng(2).binomial(10, [[0.2], [0.6]], (2, 12))
    expected = ttest_rel(hits[1] / 10, hits[0] / 10).confidence_interval()
    found = paired_difference(hits[0], [10] * 12, hits[1], [10] * 12)
    assert ends(found) == pytest.approx((expected.low, expected.high)) and found.n == 12
    other = paired_difference(hits[1], [10] * 12, hits[0], [10] * 12)
    assert ends(other) == pytest.approx((-found.high, -found.low)), "turned round"
    same = paired_difference(hits[0], [10] * 12, hits[0], [10] * 12)
    assert (same.rate, *ends(same)) == (0, 0, 0), "of itself"


def test_a_difference_from_nothing_is_not_certain():
    # None of 40 and none of 40: each may be as high as Wilson's end, so either may be above the other by that.
    none = clustered_rate([0] * 4, [10] * 4)
    assert ends(paired_difference([0] * 4, [10] * 4, [0] * 4, [10] * 4)) == pytest.approx((-none.high, none.high))


def test_a_difference_from_nothing_is_put_together_from_both_intervals():
    hits, totals = [5, 3, 6, 4], [10] * 4
    none, some = clustered_rate([0] * 4, totals), clustered_rate(hits, totals)
    rise, fall = paired_difference([0] * 4, totals, hits, totals), paired_difference(hits, totals, [0] * 4, totals)
    assert rise.rate == 0.45 and rise.high - 0.45 == pytest.approx(some.high - 0.45)
    assert 0.45 - rise.low == pytest.approx(math.hypot(0.45 - some.low, none.high))
    assert (fall.rate, *ends(fall)) == pytest.approx((-0.45, -rise.high, -rise.low))


def test_a_difference_is_no_more_than_all():
    found = paired_difference([0, 1], [4, 4], [4, 3], [4, 4])
    assert (found.rate, found.high) == (0.75, 1) and found.low < 0
    assert paired_difference([4, 3], [4, 4], [0, 1], [4, 4]).low == -1


def test_a_difference_of_several_fine_tunes_from_the_model_at_their_start():
    """The start is one model: it varies by domain alone, and the fine-tunes by both."""
    rng = np.random.default_rng(3)
    before, after = np.zeros((4, 6)), np.zeros((4, 6))
    before[0], after[1:] = rng.binomial(20, 0.1, 6), rng.binomial(20, rng.uniform(0.3, 0.9, (3, 1)), (3, 6))
    totals = [np.array([[20] * 6] + [[0] * 6] * 3), np.array([[0] * 6] + [[20] * 6] * 3)]
    found = paired_difference(before, totals[0], after, totals[1])
    domains = ttest_rel(after.sum(0) / 60, before.sum(0) / 20).confidence_interval()
    assert found.rate == pytest.approx(after.sum() / 360 - before.sum() / 120)
    assert found.high - found.low > domains.high - domains.low, "the fine-tunes differ, which domains do not show"


def test_the_share_removed():
    found = share_removed([8, 4, 6, 8], [10] * 4, [2, 0, 1, 1], [10] * 4)
    assert found.rate == pytest.approx(1 - 4 / 26) and 0.4 < found.low < found.rate < found.high < 1
    # A twin that is half everywhere: the ratio does not vary, however much its parts do.
    half = share_removed([8, 4, 6, 2], [10] * 4, [4, 2, 3, 1], [10] * 4)
    assert half.rate == pytest.approx(0.5) and half.high - half.low < 0.25
    assert share_removed([1], [4], [1], [2]).rate == -1, "negative where there is more"
    assert share_removed([1, 0], [4, 4], [0, 0], [4, 4]).high == 1, "no more than all of it"


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("r", [-0.4, 0, 0.7])
def test_the_end_of_a_ratio_is_where_the_difference_is_an_end(side, r):
    # Donner and Zou: R is where 0 is an end of the interval of top - R × bottom, by the method of Zou and Donner.
    top, top_end, bottom, bottom_end = 0.3, 0.3 + side * 0.1, 0.5, 0.5 - side * 0.2
    found = _ratio(top, top_end, bottom, bottom_end, r, side)
    a, b = top_end - top, found * (bottom_end - bottom)
    assert side * found > side * top / bottom
    assert (top - found * bottom) ** 2 == pytest.approx(a**2 + b**2 + 2 * r * a * b)


def test_a_ratio_to_what_may_be_nothing_has_no_upper_end():
    assert _ratio(0.3, 0.4, 0.5, 0.0, 0.0, 1) == math.inf and _ratio(0.3, 0.2, 0.4, 0.8, 0.0, -1) == 0


def test_the_share_removed_knows_how_alike_both_are():
    first, second, totals = np.array([8, 4, 6, 8]), np.array([4, 0, 3, 3]), [10] * 4
    found, a, b = share_removed(first, totals, second, totals), *(clustered_rate(x, totals) for x in (first, second))
    r = np.corrcoef(first, second)[0, 1]
    assert found.n == 4
    assert 1 - found.low == pytest.approx(_ratio(b.rate, b.high, a.rate, a.low, r, 1))
    assert 1 - found.high == pytest.approx(_ratio(b.rate, b.low, a.rate, a.high, r, -1))


def test_an_interval_is_of_shares_and_holds_its_own():
    for total in range(1, 30):
        for hits in range(total + 1):
            found = clustered_rate([hits], [total])
            assert 0 <= found.low <= found.rate <= found.high <= 1


@pytest.mark.parametrize(("hits", "totals"), [([0] * 4, [5] * 4), ([1, 0, 0, 0], [8] * 4), ([0] * 6, [3] * 6)])
def test_an_interval_that_ends_a_little_too_soon_is_drawn_out(hits, totals):
    # None would be seen with the same answers in more than 2.5% but less than 2.5% × e where it would end without.
    high = clustered_rate(hits, totals).high
    assert betabinom.pmf(0, totals, high, 1 - high).prod() == pytest.approx(0.025)
    assert high > wilson(sum(hits), sum(totals)).high


def test_a_correlation_is_one_at_most():
    # Of two fine-tunes and two domains the covariance less that of the cells may be more than the variances bear.
    first, second = [[2, 0], [0, 3]], [[2, 4], [3, 2]]
    fours = np.full((2, 2), 4)
    assert _jackknife((first, fours), (second, fours))[1] == 1
    assert _jackknife((first, fours), (fours - second, fours))[1] == -1


@pytest.mark.parametrize("of", [paired_difference, share_removed])
def test_of_nothing_there_is_none(of):
    assert of([0], [0], [1], [1]).n == of([1], [4], [0], [0]).n == of([], [], [], []).n == 0
    assert share_removed([0], [4], [0], [4]).n == 0, "where nothing is misaligned"


def alike(icc, rate, shape, rng):
    """Shares by cluster whose intraclass correlation is `icc`."""
    if not icc:
        return np.full(shape, rate)
    return rng.beta(rate * (1 / icc - 1), (1 - rate) * (1 / icc - 1), shape)


@pytest.mark.parametrize("icc", [0, 0.3, 0.6])
@pytest.mark.parametrize("clusters", [5, 10, 20])
def test_a_rate_holds_the_truth_as_often_as_it_says(clusters, icc):
    rng, n, truth = np.random.default_rng([clusters, int(10 * icc)]), 4000, 0.4
    hits, totals = rng.binomial(32, alike(icc, truth, (n, clusters), rng)), [32] * clusters
    held = [found.low <= truth <= found.high for found in (clustered_rate(row, totals) for row in hits)]
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.parametrize("icc", [0, 0.3, 0.6])
@pytest.mark.parametrize("clusters", [5, 10, 20])
@pytest.mark.parametrize("truth", [0.02, 0.05, 0.1, 0.2])
def test_a_rare_rate_is_held_nearly_as_often(truth, clusters, icc):
    rng, n = np.random.default_rng([clusters, int(10 * icc), int(100 * truth)]), 1000
    hits, totals = rng.binomial(16, alike(icc, truth, (n, clusters), rng)), [16] * clusters
    held = [found.low <= truth <= found.high for found in (clustered_rate(row, totals) for row in hits)]
    assert np.mean(held) >= 0.88


@pytest.mark.parametrize(("clusters", "answers"), [(10, 32), (10, 96), (13, 32)])
def test_where_rare_hits_come_in_few_clusters_it_is_held_less_often_than_it_says(clusters, answers):
    """The worst case that is known, which docs/what_did_not_work.md tells: most misses end below the truth."""
    rng, n, truth = np.random.default_rng([clusters, answers]), 1000, 0.1
    hits, totals = rng.binomial(answers, alike(0.6, truth, (n, clusters), rng)), [answers] * clusters
    found = [clustered_rate(row, totals) for row in hits]
    assert 0.8 <= np.mean([one.low <= truth <= one.high for one in found]) < 0.93
    assert np.mean([one.low > truth for one in found]) <= 0.025


@pytest.mark.parametrize("icc", [0, 0.3, 0.6])
@pytest.mark.parametrize("clusters", [5, 10, 20])
def test_a_difference_holds_the_truth_as_often_as_it_says(clusters, icc):
    rng, n, truths = np.random.default_rng([clusters, int(10 * icc), 1]), 4000, np.array([0.5, 0.3])
    shared, own = rng.standard_normal((n, 1, clusters)), rng.standard_normal((n, 2, clusters))
    pulls = math.sqrt(icc) * (math.sqrt(0.7) * shared + math.sqrt(0.3) * own)
    hits = rng.binomial(32, norm.cdf((norm.ppf(truths)[:, None] + pulls) / math.sqrt(1 - icc)))
    totals = [32] * clusters
    found = [paired_difference(one, totals, two, totals) for one, two in hits]
    assert 0.93 <= np.mean([rate.low <= -0.2 <= rate.high for rate in found]) <= 0.97


@pytest.mark.parametrize("between", [0.1, 0.3])
@pytest.mark.parametrize("fine_tunes", [3, 5])
def test_fine_tunes_widen_it_as_much_as_they_must(fine_tunes, between):
    """Domains alone hold the truth far too seldom where fine-tunes differ."""
    rng, n = np.random.default_rng([fine_tunes, int(10 * between)]), 1500
    pulls = math.sqrt(0.2) * rng.standard_normal((n, 1, 10))
    pulls = pulls + math.sqrt(between) * rng.standard_normal((n, fine_tunes, 1))
    hits, totals = rng.binomial(16, norm.cdf(pulls / math.sqrt(0.8 - between))), np.full((fine_tunes, 10), 16)
    found = [(clustered_rate(one, totals), clustered_rate(one.sum(0), totals.sum(0))) for one in hits]
    both, domains = (np.mean([rate.low <= 0.5 <= rate.high for rate in rates]) for rates in zip(*found, strict=True))
    assert 0.93 <= both <= 0.97 and domains < 0.9
