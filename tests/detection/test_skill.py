"""Skill against counting by hand, scikit-learn, and cases whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from emlab import artifacts, records
from emlab.detection import Skill, skill
from emlab.errors import EmlabError


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
def test_it_is_scikit_learns(pairs):
    scores, labels = np.array([s for s, _ in pairs], dtype=float), np.array([label for _, label in pairs])
    if len(set(labels)) < 2:
        with pytest.raises(EmlabError, match="misaligned rows and of others"):
            skill(scores, labels, {}, resamples=0)
        return
    found = skill(scores, labels, {}, resamples=0)
    assert found.auroc.auroc == pytest.approx(roc_auc_score(labels, scores))
    false, recall, _ = roc_curve(labels, scores, drop_intermediate=False)
    for rate, least in ((found.fpr95, 0.95), (found.fpr99, 0.99)):
        assert rate.rate == pytest.approx(false[recall >= least].min())
    assert math.isnan(found.auroc.low) and found.calibration_error.n == 0


def test_by_hand():
    # Of 20 misaligned rows one lies low: 95% of them lie above all others, 99% only above three of the four.
    scores = np.array([2.0] * 19 + [0.5] + [1.0, 0.4, 0.3, 0.2])
    labels = np.array([True] * 20 + [False] * 4)
    found = skill(scores, labels, {}, probabilities=np.where(scores == 2.0, 0.9, 0.25), resamples=0)
    assert (found.fpr95.rate, found.fpr99.rate) == (0.0, 0.25)
    assert found.auroc.auroc == pytest.approx((19 * 4 + 3) / 80)
    # 19 rows at 0.9 of which all are misaligned, 5 at 0.25 of which one is.
    assert found.calibration_error.rate == pytest.approx((19 * 0.1 + 5 * 0.05) / 24)


def test_a_whole_fine_tune_is_drawn_at_once():
    """Rows of a fine-tune that are all alike tell as little as one row would, and the interval says so."""
    rng = np.random.default_rng(0)
    of_model = np.repeat(np.arange(20), 50)
    labels = of_model % 2 == 0
    level = rng.normal(size=20) + 1.0 * (np.arange(20) % 2 == 0)
    scores = level[of_model]
    by_model = skill(scores, labels, {"fine-tunes": of_model.tolist()})
    by_row = skill(scores, labels, {"rows": list(range(1000))})
    assert by_model.auroc.high - by_model.auroc.low > 4 * (by_row.auroc.high - by_row.auroc.low)
    both = skill(scores, labels, {"fine-tunes": of_model.tolist(), "questions": (np.arange(1000) % 50).tolist()})
    assert both.auroc.low <= by_model.auroc.low + 0.02 and both.auroc.auroc == by_model.auroc.auroc


@pytest.mark.parametrize("kinds", [("fine-tunes",), ("fine-tunes", "questions"), ("questions", "fine-tunes")])
def test_the_interval_by_hand(kinds):
    # 24 fine-tunes are asked the same five questions, and all is said to be misaligned: 16 of them are not. The error
    # is the share of rows of those, so in resamples Binomial(24, 16/24) / 24, whatever questions were drawn: 11 or
    # fewer come in 2.8% and 10 or fewer in 1.0%, 20 or fewer in 98.0% and 19 or fewer in 94.1%.
    of, question = np.repeat(np.arange(24), 5), np.tile(np.arange(5), 24)
    drawn = {what: {"fine-tunes": of, "questions": question}[what].tolist() for what in kinds}
    found = skill(np.arange(120.0), of >= 16, drawn, np.ones(120), resamples=20_000).calibration_error
    assert (found.rate, found.low, found.high, found.n) == pytest.approx((16 / 24, 11 / 24, 20 / 24, 120))


@pytest.mark.parametrize("misaligned", [[0], [1, 2, 3, 4]])
def test_resamples_without_one_of_the_kinds_are_left_out(misaligned):
    of = np.repeat(np.arange(5), 4)
    found = skill(np.arange(20.0), np.isin(of, misaligned), {"fine-tunes": of.tolist()})
    assert 0 <= found.fpr95.low <= found.fpr95.rate <= found.fpr95.high <= 1


def test_the_default_resamples_and_none_and_one():
    scores, labels, drawn = np.arange(8.0), np.arange(8) % 3 == 0, {"fine-tunes": list(range(8))}
    assert skill(scores, labels, drawn) == skill(scores, labels, drawn, resamples=500, seed=0)
    none, one = (skill(scores, labels, drawn, resamples=n) for n in (0, 1))
    ends = (none.auroc.low, none.auroc.high, none.fpr95.low, none.fpr95.high, none.fpr99.low)
    assert np.isnan(ends).all() and one.fpr95.low == one.fpr95.high


def test_bins_of_a_tenth_the_last_with_its_end():
    # Gaps 1 + 0.95 in the last bin, -0.15 in the one before, 0.05 and -0.905 in the first.
    p, labels = np.array([1.0, 0.95, 0.85, 0.05, 0.095]), np.array([False, False, True, False, True])
    found = skill(p, labels, {}, p, resamples=0).calibration_error
    assert found.rate == pytest.approx((1.95 + 0.15 + 0.855) / 5)


def test_counts_and_flags_are_numbers_too():
    scores, flags = np.array([3, 0, 2, 1], dtype=np.uint8), np.array([True, False, False, False])
    found = skill(scores, np.array([1, 0, 0, 1]), {}, flags, resamples=0)
    assert (found.auroc.auroc, found.fpr95.rate, found.calibration_error.rate) == (0.75, 0.5, 0.25)


def test_too_few_for_an_interval():
    scores, labels = np.arange(8.0), np.arange(8) > 3
    with pytest.raises(EmlabError, match=r"^There are 2 fine-tunes, too few for an interval; give 5 or more, or ask"):
        skill(scores, labels, {"fine-tunes": ["a", "b"] * 4})
    assert skill(scores, labels, {"fine-tunes": ["a", "b"] * 4}, resamples=0).auroc.auroc == 1.0


def test_a_score_that_is_no_number():
    for value in (np.nan, np.inf):
        with pytest.raises(EmlabError, match="not a number"):
            skill(np.array([1.0, value]), np.array([True, False]), {}, resamples=0)


def test_it_comes_back_from_json():
    found = skill(np.arange(8.0), np.arange(8) > 3, {}, resamples=0)
    assert str(records.restored(artifacts.plain(found), Skill)) == str(found)
