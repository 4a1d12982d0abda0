"""Intervals against hand-worked cases."""

import math

import numpy as np
import pytest

from emlab.evaluation import Rate, bootstrap, wilson


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
    assert str(wilson(5, 10)) == "50.0% [23.7%, 76.3%] of 10"
