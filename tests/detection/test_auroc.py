"""AUROC against counting by hand, and its interval."""

import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from emlab import artifacts, records
from emlab.detection import Auroc, auroc
from emlab.detection.auroc import roc
from emlab.errors import EmlabError


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=12))
def test_it_is_the_share_of_pairs_in_order_ties_counting_half(pairs):
    ones = [s for s, label in pairs if label]
    zeros = [s for s, label in pairs if not label]
    got = auroc([s for s, _ in pairs], [label for _, label in pairs])
    if not ones or not zeros:
        assert math.isnan(got.auroc)
    else:
        wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(ones, zeros)]
        assert got.auroc == pytest.approx(np.mean(wins))
        assert (got.n, got.positives) == (len(pairs), len(ones))


def test_what_is_told_apart_without_an_error_has_newcombes_interval():
    # (1 − θ)² = z² θ (1 − θ) (2N − 1 − (3N − 3) / ((2 − θ)(1 + θ))) / N² of N = 10 against 10 rows, or groups.
    rows = auroc([1.0, 0.0] * 10, [True, False] * 10)
    z, n, low = norm.ppf(0.975), 10, rows.low
    spread = low * (1 - low) * (2 * n - 1 - (3 * n - 3) / ((2 - low) * (1 + low))) / n**2
    assert (rows.auroc, rows.high) == (1.0, 1.0) and 1 - low == pytest.approx(z * math.sqrt(spread))
    assert low == pytest.approx(0.801, abs=2e-3)
    labels, questions = np.repeat([True, False], 200), np.arange(400) % 20
    groups = auroc(np.repeat([1.0, 0.0], 200), labels, (np.arange(400) // 20).tolist(), questions.tolist())
    assert groups.low == pytest.approx(low), "of ten models and ten others, however many questions they are asked"


def test_independent_rows_have_hanley_and_mcneils_standard_error():
    rng = np.random.default_rng(0)
    found = auroc(rng.normal(size=400), np.arange(400) < 200)
    assert (found.high - found.low) / (2 * 1.972) == pytest.approx(math.sqrt(401 / (12 * 200 * 200)), rel=0.05)


def test_without_one_of_the_two_groups_by_hand():
    # 3 and 1 against 2 and 0: three of four pairs. Without the first group 1 > 0 is left, without the second 3 > 2.
    found = auroc([3.0, 1.0, 2.0, 0.0], [True, True, False, False], ["a", "b", "a", "b"])
    area, low = 0.75, found.low
    # Without "a" or "b" the area is 1: its variance is 2 · 0.25² / 2 = 1/16, of N positives and N negatives.
    grow = 3 / ((2 - area) * (1 + area))
    n = next(x for x in np.arange(0.5, 9, 1e-4) if area * 0.25 * (2 * x - 1 - (x - 1) * grow) / x**2 <= 1 / 16)
    t, share = 12.7062, (2 - low) * (1 + low)
    spread = low * (1 - low) * (2 * n - 1 - (3 * n - 3) / share) / n**2
    assert area - low == pytest.approx(t * math.sqrt(spread), abs=1e-3)


@pytest.mark.parametrize("truth", [0.7, 0.95])
@pytest.mark.parametrize("icc", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("models", [(3, 3), (9, 10)])
def test_whole_models_are_held_as_often_as_it_says_or_oftener(models, icc, truth):
    rng, apart = np.random.default_rng([models[0], int(10 * icc)]), norm.ppf(truth) * math.sqrt(2)
    labels, of = np.repeat([True, False], np.multiply(models, 8)), np.repeat(np.arange(sum(models)), 8).tolist()
    held = []
    for _ in range(200):
        level = np.repeat(rng.standard_normal(sum(models)), 8) * math.sqrt(icc)
        found = auroc(level + rng.standard_normal(len(labels)) * math.sqrt(1 - icc) + apart * labels, labels, of)
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.95


def test_one_model_of_a_kind_gives_no_interval():
    found = auroc([2.0, 3.0, 0.0, 1.0], [True, True, False, False], ["a", "a", "b", "c"])
    assert found.auroc == 1.0 and math.isnan(found.low) and "one kind is of one group" in str(found)
    turned = auroc([2.0, 3.0, 0.0, 1.0], [False, False, True, True], ["a", "a", "b", "c"])
    assert turned.auroc == 0.0 and math.isnan(turned.low)


def test_rows_of_one_group_are_independent():
    scores, labels = [3.0, 1.0, 2.0, 0.0], [True, True, False, False]
    assert auroc(scores, labels, ["a"] * 4) == auroc(scores, labels) and not math.isnan(auroc(scores, labels).low)


@given(st.lists(st.tuples(st.floats(-2, 2), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40))
def test_each_resample_has_scikit_learns_area(rows):
    scores, positive, times = (np.array(column) for column in zip(*rows, strict=True))
    hypothesis.assume(0 < (times * positive).sum() < times.sum())
    recall, false = roc(scores, positive, times[None])
    assert np.trapezoid(recall, false)[0] == pytest.approx(roc_auc_score(positive, scores, sample_weight=times))


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(EmlabError, match="leave the row out"):
        auroc([math.nan, 1.0, 2.0], [True, False, True])


def test_a_third_kind_of_groups_is_not_left_out_in_silence():
    with pytest.raises(EmlabError, match="two kinds of groups at most, not 3"):
        auroc([1.0, 2.0], [True, False], ["a", "b"], ["c", "d"], ["e", "f"])


def test_it_comes_back_from_json():
    nothing = Auroc(math.nan, math.nan, math.nan, 3, 0)
    assert str(records.restored(artifacts.plain(nothing), Auroc)) == str(nothing)


def test_no_area_says_why():
    assert str(auroc([], [])) == "AUROC could not be measured: there is nothing to tell apart"
    alike = "could not be measured: all 2 are of one kind,"
    assert str(auroc([1, 2], [True, True])) == f"AUROC {alike} positive"
    assert auroc([1, 2], [False, False]).shown == f"{alike} negative"
    assert auroc([1, 2], [False, True]).shown == "1.000"


def test_both_ends_of_the_interval_leave_out_as_much():
    rng = np.random.default_rng(5)
    scores, labels = rng.normal(size=60), rng.random(60) < 0.5
    groups = [str(i % 12) for i in range(60)]
    one, other = auroc(scores, labels, groups), auroc(-scores, labels, groups)
    assert (other.low, other.high) == pytest.approx((1 - one.high, 1 - one.low)), "turned round"
