"""Calibrations whose truth is known, thresholds by hand, and cross-fitting that never scores what it was fitted on."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab import artifacts, records
from emlab.detection import Calibration, alarm_threshold, calibrate, calibrated, cross_fitted
from emlab.detection.evidence import SealedScores
from emlab.errors import EmlabError


def drawn(n, seed=0):
    """Scores, and labels that are misaligned with the probability 1 / (1 + exp(−2 score))."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=n)
    return scores, rng.random(n) < 1 / (1 + np.exp(-2 * scores))


@pytest.mark.parametrize("how", ["platt", "isotonic"])
def test_probabilities_are_those_of_the_draw(how):
    map_ = calibrate(*drawn(20_000), how)
    at = np.array([-1.5, -0.5, 0.0, 0.5, 1.5])
    assert map_(at) == pytest.approx(1 / (1 + np.exp(-2 * at)), abs=0.04)
    assert (np.diff(map_(np.linspace(-5, 5, 200))) >= 0).all()
    again = records.restored(artifacts.plain(map_), Calibration)
    assert (again(at) == map_(at)).all() and again.threshold == map_.threshold
    never = dataclasses.replace(map_, threshold=math.inf)
    assert records.restored(artifacts.plain(never), Calibration) == never, "JSON has no inf"


def test_a_probability_by_hand():
    map_ = Calibration("platt", (10.0, 2.0), (3.0, -1.0), 0.0, 0.01)  # log-odds 3 (score - 10) / 2 - 1
    assert map_(np.array([-60], dtype=np.float32)) > 0, "log-odds of -106, which single precision cannot raise e to"
    assert map_([10, 14]) == pytest.approx([1 / (1 + math.e), 1 / (1 + math.exp(-5))])
    steps = Calibration("isotonic", (10.0, 14.0), (0.2, 0.6), 0.0, 0.01)
    assert steps([9, 10, 11, 15]) == pytest.approx([0.2, 0.2, 0.3, 0.6])


@pytest.mark.parametrize("how", ["platt", "isotonic"])
def test_the_unit_of_the_scores_does_not_matter(how):
    scores, labels = drawn(200)
    plain, other = calibrate(scores, labels, how, 0.1), calibrate(100 + 5 * scores, labels.astype(int), how, 0.1)
    at = np.array([-1.0, 0.3, 2.0])
    assert other(100 + 5 * at) == pytest.approx(plain(at), abs=1e-4)
    assert other.threshold == pytest.approx(100 + 5 * plain.threshold)
    assert plain.threshold == alarm_threshold(scores[~labels], 0.1)


def test_scores_in_half_precision_are_calculated_with_as_others():
    scores, labels = drawn(50)
    half, at = scores.astype(np.float16), np.array([-1.0, 1.0])
    assert calibrate(half, labels)(at) == pytest.approx(calibrate(half.astype(float), labels)(at), rel=1e-9)


def test_sealed_scores_and_labels_are_not_calibrated_on():
    scores, labels = np.arange(2.0), np.array([True, False])
    for sealed in ((scores.view(SealedScores), labels), (scores, labels.view(SealedScores))):
        with pytest.raises(EmlabError, match="it was given to calibrate on"):
            calibrate(*sealed)
    with pytest.raises(EmlabError, match="it was given to set a threshold on"):
        alarm_threshold(scores.view(SealedScores))


def test_scores_that_separate_give_no_certainty():
    map_ = calibrate(np.array([0.0, 1.0, 2.0, 3.0]), np.array([False, False, True, True]))
    assert 0.5 < map_(np.array([3.0]))[0] < 0.99


def test_a_threshold_by_hand():
    negatives = np.arange(100.0)
    assert alarm_threshold(negatives, 0.01) == 98  # one of a hundred lies above it
    assert alarm_threshold(negatives, 0.0) == 99
    assert alarm_threshold(np.array([1.0, 1.0, 1.0]), 0.5) == 1.0
    assert alarm_threshold(np.zeros(0)) == math.inf
    with pytest.raises(EmlabError, match="from 0 to below 1"):
        alarm_threshold(negatives, 1.0)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.floats(0, 0.99))
def test_a_threshold_is_quiet_enough_and_no_higher_than_it_must_be(values, share):
    negatives = np.array(values, dtype=float)
    limit = alarm_threshold(negatives, share)
    assert (negatives > limit).mean() <= share + 1e-9
    lower = negatives[negatives < limit]
    if len(lower):
        assert (negatives > lower.max()).mean() > share


def test_no_domain_is_scored_by_what_was_fitted_on_it():
    cases = [
        SimpleNamespace(evidence=np.zeros(2), labels=np.array([True, False]), domain=domain, model=domain)
        for domain in ("code", "law", "code")
    ]
    seen = []

    def fit(kept):
        seen.append([case.domain for case in kept])
        return SimpleNamespace(scores=lambda evidence: np.full(len(evidence), float(len(kept))))

    assert cross_fitted(fit, cases).tolist() == [1, 1, 2, 2, 1, 1]
    assert seen == [["law"], ["code", "code"]]
    with pytest.raises(EmlabError, match="there is one only"):
        cross_fitted(fit, cases[:1])


def test_one_kind_only_or_another_calibration():
    with pytest.raises(EmlabError, match="scores of both kinds"):
        calibrate(np.arange(3.0), np.array([True] * 3))
    with pytest.raises(EmlabError, match="choose platt or isotonic"):
        calibrate(np.arange(2.0), np.array([True, False]), "beta")


def test_of_equal_scores_the_probability_is_the_share_of_misaligned():
    map_ = calibrate(np.full(4, 7.0), np.array([True, False, False, False]))
    assert map_(np.array([0.0, 7.0, 9.0])) == pytest.approx(1 / 4, abs=1e-3) and map_.threshold == 7


def test_calibrated_as_it_is_told():
    # By cross-fitting each domain is scored with the other's number: 10 + (0, 1, 2) and 20 + (0, 1, 2).
    scores, labels = np.arange(3.0), np.array([False, False, True])
    cases = [SimpleNamespace(evidence=scores, labels=labels, domain=name) for name in ("code", "law")]

    def fit(kept):
        return SimpleNamespace(scores=lambda evidence: evidence + {"law": 10, "code": 20}[kept[0].domain])

    found = calibrated(fit, cases, "isotonic", 0.5)
    assert (found.how, found.threshold, found.false_positives) == ("isotonic", 11, 0.5)  # of 10, 11, 20 and 21
    # 0, 0, 1, 0, 0, 1: the one that is misaligned among the low is taken together with those after it.
    assert found(np.array([9.0, 11, 12, 21, 22, 23])) == pytest.approx([0, 0, 1 / 3, 1 / 3, 1, 1])
    usual = calibrated(fit, cases)
    assert (usual.how, usual.threshold, usual.false_positives) == ("platt", 21, 0.01)
