"""Intervals against hand-worked cases."""

import math

import numpy as np
import pytest

from emlab.evaluation import Rate, bootstrap, wilson
from emlab.evaluation.rates import (
    Mean,
    intraclass_correlation,
    mean_by_question,
    mean_of,
    paired_difference,
    share_removed,
)


def test_bootstrap_over_two_questions_by_hand():
    # One question is always misaligned, one never. A resample holds the first 0, 1 or 2 times, with probability
    # 1/4, 1/2, 1/4, so the rate is 0, 1/2 or 1, and 2.5% of each tail lie at the ends.
    assert bootstrap([10, 0], [10, 10]) == Rate(0.5, 0.0, 1.0, 20)


def test_bootstrap_over_four_questions_by_hand():
    # The sum of four draws of (1, 0, 0, 0) is binomial(4, 1/4): P(0) = 0.316, and P(4) = 0.004 and P(3) = 0.047, so
    # the 97.5th percentile is 3 of 4.
    rate = bootstrap([5, 0, 0, 0], [5, 5, 5, 5])
    assert (rate.rate, rate.low, rate.high) == (0.25, 0.0, 0.75)


def test_bootstrap_weighs_questions_by_their_answers():
    # The first question has 1 coherent answer, the second 9: resamples give 1/1, 1/10, 0/9.
    rate = bootstrap([1, 0], [1, 9])
    assert (rate.rate, rate.low, rate.high, rate.n) == (0.1, 0.0, 1.0, 10)


def test_bootstrap_agrees_with_the_normal_approximation():
    hits = np.random.default_rng(0).binomial(10, 0.3, size=400)
    rate = bootstrap(hits, [10] * 400)
    error = hits.std() / 10 / math.sqrt(400)
    assert rate.low == pytest.approx(rate.rate - 1.96 * error, abs=0.002)
    assert rate.high == pytest.approx(rate.rate + 1.96 * error, abs=0.002)
    assert rate == bootstrap(hits, [10] * 400), "the seed is fixed"


def test_questions_without_a_coherent_answer_do_not_spoil_it():
    rate = bootstrap([0, 2], [0, 4])
    assert (rate.rate, rate.low, rate.high, rate.n) == (0.5, 0.5, 0.5, 4)


@pytest.mark.parametrize("rate", [bootstrap([0, 0], [0, 0]), bootstrap([], []), wilson(0, 0)])
def test_of_nothing_there_is_no_rate(rate):
    assert rate.n == 0
    assert all(math.isnan(x) for x in (rate.rate, rate.low, rate.high))
    assert str(rate) == "no answers"


def test_wilson_by_hand():
    # 1 of 10: centre (0.1 + 1.92/10) / (1 + 3.84/10) = 0.2111, half width 0.1931.
    rate = wilson(1, 10)
    assert (rate.low, rate.high) == pytest.approx((0.0179, 0.4042), abs=1e-4)
    assert wilson(0, 10).low == 0.0
    assert wilson(10, 10).high == pytest.approx(1.0)
    # Nothing of 9, one standard error around it: the formula's own rounding must not leave 0 outside.
    assert wilson(0, 9, z=1.0).low == 0.0 and wilson(9, 9, z=1.0).high == 1.0
    assert str(wilson(5, 10)) == "50.0% [23.7%, 76.3%] of 10"


def test_an_interval_without_width_is_told_apart():
    none, some = bootstrap([0] * 40, [8] * 40), bootstrap([1, 0], [8, 8])
    assert none.flat and not some.flat and not wilson(0, 320).flat and not bootstrap([], []).flat
    assert none.independent == wilson(0, 320)
    assert str(none) == "0.0% [0.0%, 0.0%] of 320 (Wilson [0.0%, 1.2%])"
    assert "Wilson" not in str(some)
    # One question alone, whatever its answers: nothing varies between questions.
    assert bootstrap([3], [8]).flat and bootstrap([3], [8]).independent == wilson(3, 8)


# --- the intraclass correlation ---


def test_the_intraclass_correlation_of_shrout_and_fleiss():
    # Shrout and Fleiss (1979), table 2: six targets by four judges; table 4 gives ICC(1,1) = 0.17, from the mean
    # squares 11.24 between targets and 6.26 within them.
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = intraclass_correlation(np.ravel(ratings), np.repeat(range(6), 4))
    assert found == pytest.approx((11.24 - 6.26) / (11.24 + 3 * 6.26), abs=1e-3)
    assert round(found, 2) == 0.17


def test_the_intraclass_correlation_of_unequal_groups_by_hand():
    # a: 0 1, b: 1 1 1 0, mean 4/6. Between, 1 degree: 2 (1/2 - 2/3)² + 4 (3/4 - 2/3)² = 1/12. Within, 4 degrees:
    # (1/2 + 3/4) / 4 = 5/16. n0 = (6 - 20/6) / 1 = 8/3.
    found = intraclass_correlation([0, 1, 1, 1, 1, 0], list("aabbbb"))
    assert found == pytest.approx((1 / 12 - 5 / 16) / (1 / 12 + 5 / 3 * 5 / 16))
    assert found < 0


def test_the_intraclass_correlation_at_its_ends():
    assert intraclass_correlation([True, True, False, False], [1, 1, 2, 2]) == 1
    # Two groups alike: between 0, so it is -1 / (2 - 1).
    assert intraclass_correlation([0, 1, 0, 1], [1, 1, 2, 2]) == -1
    assert intraclass_correlation([0, 1, 0, 1], ["b", "a", "b", "a"]) == 1, "the order does not matter"


@pytest.mark.parametrize(
    ("values", "groups"), [([], []), ([1], [1]), ([0, 1], [1, 2]), ([0, 1, 1], [1, 1, 1]), ([1, 1, 1, 1], [1, 1, 2, 2])]
)
def test_where_there_is_no_intraclass_correlation(values, groups):
    assert math.isnan(intraclass_correlation(values, groups))


# --- the paired difference ---


def test_the_paired_difference_by_hand():
    # Two questions: up by 1 (of 1) and down by 1. Resamples hold the first 0, 1 or 2 times: -1, 0 or 1.
    found = paired_difference([0, 1], [1, 1], [1, 0], [1, 1])
    assert (found.rate, found.low, found.high, found.n) == (0, -1, 1, 2)


def test_the_paired_difference_turns_its_sign_with_its_models():
    numbers = np.random.default_rng(1).integers(0, 5, size=(2, 30))
    one = paired_difference(numbers[0], [5] * 30, numbers[1], [5] * 30)
    other = paired_difference(numbers[1], [5] * 30, numbers[0], [5] * 30)
    assert (one.rate, one.low, one.high) == pytest.approx((-other.rate, -other.high, -other.low))
    assert one.rate == pytest.approx((numbers[1].sum() - numbers[0].sum()) / 150)


def test_the_paired_difference_agrees_with_the_normal_approximation():
    hits = np.random.default_rng(2).binomial(10, 0.3, size=(2, 400))
    found = paired_difference(hits[0], [10] * 400, hits[1], [10] * 400)
    error = (hits[1] - hits[0]).std() / 10 / math.sqrt(400)
    assert (found.low, found.high) == pytest.approx((found.rate - 1.96 * error, found.rate + 1.96 * error), abs=0.002)


def test_the_share_removed_by_hand():
    # All of two questions at first, then the first alone: resamples hold it 0, 1 or 2 times, and 1, 1/2 or 0 is gone.
    found = share_removed([1, 1], [1, 1], [1, 0], [1, 1])
    assert (found.rate, found.low, found.high, found.n) == (0.5, 0, 1, 2)
    # Shares of other denominators: 2/4 falls to 1/8, so three quarters are gone, in every question alike.
    found = share_removed([2, 2], [4, 4], [1, 1], [8, 8])
    assert (found.rate, found.low, found.high) == (0.75, 0.75, 0.75)
    assert share_removed([1], [4], [1], [2]).rate == -1, "negative where there is more"


def test_the_share_removed_of_nothing():
    assert share_removed([0], [4], [0], [4]).n == 0, "where nothing is misaligned"
    assert share_removed([1], [4], [0], [0]).n == 0, "where no answer is coherent"


def test_a_paired_difference_of_nothing():
    assert paired_difference([0], [0], [1], [1]).n == 0
    assert paired_difference([], [], [], []).n == 0
    found = paired_difference([1, 0], [1, 0], [0, 1], [0, 1])
    assert (found.rate, found.low, found.high) == (0, 0, 0), "resamples that lack one of the models are left out"


# --- mean scores ---


def test_the_mean_over_two_questions_by_hand():
    # 0 and 20, and 100: the mean of all is 40; resamples hold the first 0, 1 or 2 times: 100, 40 or 10.
    assert mean_by_question([20, 100], [2, 1]) == Mean(40, 10, 100, 3)


def test_the_mean_of_one_questions_answers_by_hand():
    # 10, 20, 30: s = 10, and Student's 97.5% point of 2 degrees is 4.3027.
    found = mean_of([10, 20, 30])
    assert (found.mean, found.n) == (20, 3)
    assert found.high - 20 == pytest.approx(4.30265 * 10 / math.sqrt(3), abs=1e-3) and found.low == 0
    assert str(mean_of([50, 60])) == "55.0 [0.0, 100.0] of 2" and str(mean_of([50])) == "50.0 of 1"
    assert mean_of([50]).summary() == {"mean": 50.0, "low": None, "high": None, "n": 1}
    assert str(mean_of([])) == str(mean_by_question([0], [0])) == "no scores"
    assert mean_of([]).summary() == {"mean": None, "low": None, "high": None, "n": 0}
