"""AUROC against counting by hand, and its interval."""

import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from emlab import artifacts, records
from emlab.detection import Auroc, auroc
from emlab.detection.auroc import roc
from emlab.errors import EmlabError


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=12))
def test_it_is_the_share_of_pairs_in_order_ties_counting_half(pairs):
    ones = [s for s, label in pairs if label]
    zeros = [s for s, label in pairs if not label]
    got = auroc([s for s, _ in pairs], [label for _, label in pairs], [str(i) for i in range(len(pairs))])
    if not ones or not zeros:
        assert math.isnan(got.auroc)
    else:
        wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(ones, zeros)]
        assert got.auroc == pytest.approx(np.mean(wins))
        assert (got.n, got.positives) == (len(pairs), len(ones))


def test_its_interval_resamples_questions():
    # Ten questions that each hold one positive above one negative: whatever is drawn, the order is right.
    sure = auroc([1.0, 0.0] * 10, [True, False] * 10, [str(i // 2) for i in range(20)])
    assert (sure.auroc, sure.low, sure.high) == (1.0, 1.0, 1.0)
    rng = np.random.default_rng(0)
    chance = auroc(rng.normal(size=400), rng.random(400) < 0.5, [str(i) for i in range(400)])
    assert chance.low < 0.5 < chance.high
    assert 0.08 < chance.high - chance.low < 0.16  # the standard error of 200 against 200 is about 0.029


@given(st.lists(st.tuples(st.floats(-2, 2), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40))
def test_each_resample_has_scikit_learns_area(rows):
    scores, positive, times = (np.array(column) for column in zip(*rows, strict=True))
    hypothesis.assume(0 < (times * positive).sum() < times.sum())
    recall, false = roc(scores, positive, times[None])
    assert np.trapezoid(recall, false)[0] == pytest.approx(roc_auc_score(positive, scores, sample_weight=times))


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(EmlabError, match="leave the row out"):
        auroc([math.nan, 1.0, 2.0], [True, False, True], ["a", "b", "c"])


def test_it_comes_back_from_json():
    nothing = Auroc(math.nan, math.nan, math.nan, 3, 0)
    assert str(records.restored(artifacts.plain(nothing), Auroc)) == str(nothing)


def test_no_area_says_why():
    assert str(auroc([], [], [])) == "AUROC could not be measured: there is nothing to tell apart"
    alike = "could not be measured: all 2 are of one kind,"
    assert str(auroc([1, 2], [True, True], ["a", "b"])) == f"AUROC {alike} positive"
    assert auroc([1, 2], [False, False], ["a", "b"]).shown == f"{alike} negative"
    assert auroc([1, 2], [False, True], ["a", "b"]).shown == "1.000"


def test_both_ends_of_the_interval_leave_out_as_much():
    rng = np.random.default_rng(5)
    scores, labels = rng.normal(size=60), rng.random(60) < 0.5
    groups = [str(i % 12) for i in range(60)]
    one, other = auroc(scores, labels, groups), auroc(-scores, labels, groups)
    assert (other.low, other.high) == pytest.approx((1 - one.high, 1 - one.low)), "turned round"
