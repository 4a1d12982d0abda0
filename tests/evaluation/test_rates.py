"""Intervals against hand-worked cases."""

import math

import numpy as np
import pytest

from emlab.evaluation import clustered_rate, wilson
from emlab.evaluation.intervals import clustered_mean
from emlab.evaluation.rates import NO_RATE, Rate, intraclass_correlation, mean_of


@pytest.mark.parametrize("rate", [clustered_rate([0, 0], [0, 0]), clustered_rate([], []), wilson(0, 0)])
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


def test_a_share_and_a_difference_are_shown_as_such():
    assert (Rate(0.25, 0.1, 0.5, 8).share, NO_RATE.share) == ("25.0%", "no answers")
    assert (Rate(-0.25, -0.5, 0.1, 8).points, NO_RATE.points) == ("-25.0 [-50.0, +10.0] points", "–")
    assert NO_RATE.summary() == {"rate": None, "low": None, "high": None}
    assert Rate.of(Rate(0.25, 0.1, 0.5, 8).summary() | {"n": 8}) == Rate(0.25, 0.1, 0.5, 8)
    assert math.isnan(Rate.of(NO_RATE.summary() | {"n": 0}).low)


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


# --- mean scores ---


def test_the_mean_of_one_questions_answers_by_hand():
    # 10, 20, 30: s = 10, and Student's 97.5% point of 2 degrees is 4.3027.
    found = mean_of([10, 20, 30])
    assert (found.mean, found.n) == (20, 3)
    assert found.high - 20 == pytest.approx(4.30265 * 10 / math.sqrt(3), abs=1e-3) and found.low == 0
    assert str(mean_of([50, 60])) == "55.0 [0.0, 100.0] of 2" and str(mean_of([50])) == "50.0 of 1"
    assert mean_of([50]).summary() == {"mean": 50.0, "low": None, "high": None, "n": 1}
    assert str(mean_of([])) == str(clustered_mean([0], [0])) == "no scores"
    assert mean_of([]).summary() == {"mean": None, "low": None, "high": None, "n": 0}
