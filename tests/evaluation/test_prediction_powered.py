"""Rates from two judges: against hand-worked numbers, the published implementation, and cases that must agree."""

import numpy as np
import pytest

from emlab.evaluation import prediction_powered
from emlab.evaluation.intervals import clustered_rate
from emlab.evaluation.prediction_powered import Counts, beyond_chance, prediction_powered_rate


def flags(*values):
    return np.array(values, dtype=bool)


def whole(n):
    return np.ones(n, dtype=bool)


def test_a_share_of_all_answers_worked_out_by_hand():
    # Labelled: the judge says 1 1 0 0 (mean 1/2) and gold 1 1 1 0 (3/4); of all eight the judge says 5/8.
    # Their covariance is 2/4 − 3/4 × 1/2 = 1/8 and the judge's variance 5/8 × 3/8, so the tuning is 8/15, and the rate
    # 3/4 + 8/15 × (5/8 − 1/2).
    cheap, gold = flags(1, 1, 0, 0, 1, 1, 1, 0), flags(1, 1, 1, 0)
    rate, tuning = prediction_powered_rate(Counts(cheap, whole(8)), Counts(gold, whole(4)), np.arange(4), np.arange(8))
    assert rate.rate == pytest.approx(49 / 60) and tuning == pytest.approx(8 / 15)
    assert rate.n == 4 and 0 < rate.low < rate.rate < rate.high < 1


def test_a_share_of_coherent_answers_worked_out_by_hand():
    # Gold alone has 1 of 3, so what counts is misaligned − coherent / 3: by gold (2 −1 0 −1) / 3, by the judge
    # (2 2 0 −1 | 2 2 2 0) / 3. The covariance is 3/9 / 4, the judge's variance 21/9 / 8 − (3/8)² = 29/192, the tuning
    # 16/29. Misaligned 1/4 + 16/29 × 1/8, and coherent 3/4 by both, gives 37/87.
    cheap = Counts(flags(1, 1, 0, 0, 1, 1, 1, 0), flags(1, 1, 0, 1, 1, 1, 1, 0))
    gold = Counts(flags(1, 0, 0, 0), flags(1, 1, 0, 1))
    rate, tuning = prediction_powered_rate(cheap, gold, np.arange(4), np.arange(8))
    assert rate.rate == pytest.approx(37 / 87) and tuning == pytest.approx(16 / 29) and rate.n == 3


def test_as_the_published_implementation_where_answers_are_independent():
    rng = np.random.default_rng(0)
    true = rng.random(2000) < 0.3
    cheap = np.where(rng.random(2000) < 0.2, ~true, true)
    rate, _ = prediction_powered_rate(
        Counts(cheap, whole(2000)), Counts(true[:200], whole(200)), np.arange(200), np.arange(2000)
    )
    # ppi_mean_pointestimate(y, f, u) and ppi_mean_ci(y, f, u, alpha=0.05) of ppi_py 0.2.3 on the same numbers.
    assert rate.rate == pytest.approx(0.2561711, abs=5e-4)
    assert rate.high - rate.low == pytest.approx(0.31125131 - 0.2010909, rel=0.02)


def test_a_judge_that_says_the_same_of_all_leaves_the_gold_labels_alone():
    rng = np.random.default_rng(0)
    true, clusters = rng.random(60) < 0.4, np.repeat(np.arange(20), 3)
    labelled = rng.choice(60, 25, replace=False)
    gold = Counts(true[labelled], whole(25))
    rate, tuning = prediction_powered_rate(Counts(whole(60), whole(60)), gold, labelled, clusters)
    of = clusters[labelled]
    alone = clustered_rate(np.bincount(of, gold.hits), np.bincount(of))
    assert tuning == 0 and rate.rate == pytest.approx(alone.rate) == true[labelled].mean()
    assert rate.high - rate.low == pytest.approx(alone.high - alone.low, rel=0.05)


def test_with_gold_labels_of_all_answers_the_judge_does_not_matter():
    rng = np.random.default_rng(0)
    coherent = rng.random(60) < 0.8
    gold = Counts(coherent & (rng.random(60) < 0.4), coherent)
    cheap = Counts(rng.random(60) < 0.5, whole(60))
    rate, _ = prediction_powered_rate(cheap, gold, np.arange(60), np.repeat(np.arange(20), 3))
    assert rate.rate == pytest.approx(gold.hits.sum() / coherent.sum())


def test_the_tuning_has_the_least_variance_over_draws_of_gold_labels():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(8), 50)
    true = rng.random(400) < np.linspace(0.1, 0.9, 8)[clusters]  # questions differ much, as the judge's errors do
    cheap = np.where(rng.random(400) < np.linspace(0.4, 0.1, 8)[clusters], ~true, true)
    tried, found, tunings = np.linspace(0, 1, 21), [], []
    for _ in range(2000):
        at = rng.choice(400, 60, replace=False)
        found.append(true[at].mean() + tried * (cheap.mean() - cheap[at].mean()))
        rate, tuning = prediction_powered_rate(Counts(cheap, whole(400)), Counts(true[at], whole(60)), at, clusters)
        assert rate.rate == pytest.approx(true[at].mean() + tuning * (cheap.mean() - cheap[at].mean()))
        tunings.append(tuning)
    assert 0.3 < np.mean(tunings) < 0.8
    assert np.mean(tunings) == pytest.approx(tried[np.var(found, axis=0).argmin()], abs=0.06)


def test_an_interval_of_gold_labels_alone_by_hand():
    # Five clusters, of which the last has no gold label; the judge says the same of all. The shares are 1, 0, 0, 0:
    # without the first the rate moves by -1/4, without one of the three by 1/12, without the last not at all. The
    # variance is 4/5 of the sum of squares 1/12, as of 0.1875 × 15 answers; Student's point has 3 degrees.
    clusters, gold = np.repeat(np.arange(5), 5), np.arange(20) < 5
    rate, tuning = prediction_powered_rate(
        Counts(whole(25), whole(25)), Counts(gold, whole(20)), np.arange(20), clusters
    )
    n, t = 0.1875 * 15, 3.182446
    middle, half = 0.25 + t * t / (2 * n), t * np.sqrt(0.1875 / n + t * t / (4 * n * n))
    assert (rate.rate, rate.n, tuning) == (0.25, 20, 0)
    assert (rate.low, rate.high) == pytest.approx(
        ((middle - half) / (1 + t * t / n), (middle + half) / (1 + t * t / n))
    )


def test_gold_labels_in_two_clusters_are_enough():
    gold = Counts(flags(1, 0, 0, 0), whole(4))
    rate, _ = prediction_powered_rate(Counts(whole(4), whole(4)), gold, np.arange(4), np.array([0, 0, 1, 1]))
    alone = clustered_rate([1, 0], [2, 2])
    assert (rate.rate, rate.low, rate.high, rate.n) == pytest.approx((0.25, alone.low, alone.high, 4))


def test_gold_labels_in_one_cluster_give_no_rate():
    gold = Counts(flags(1, 0), whole(2))
    assert prediction_powered_rate(Counts(flags(1, 0, 1), whole(3)), gold, np.arange(2), np.array([0, 0, 1]))[0].n == 0


def test_chance_alone_is_taken_for_a_difference_as_often_as_the_p_value_says(monkeypatch):
    monkeypatch.setattr(prediction_powered, "PERMUTATIONS", 199)
    rng = np.random.default_rng(0)
    groups, questions, nowhere = np.repeat(np.arange(5), 24), np.repeat(np.arange(40), 3), np.zeros(120, int)
    seen = {"questions": [], "answers": []}
    for _ in range(500):
        errors = rng.normal(size=40)[questions] + rng.normal(size=120)  # alike in a question, and in no group
        seen["questions"].append(beyond_chance(errors, groups, questions, nowhere))
        seen["answers"].append(beyond_chance(errors, groups, np.arange(120), nowhere))
    assert np.mean(np.array(seen["questions"]) <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(np.array(seen["questions"]) <= 0.5) == pytest.approx(0.5, abs=0.06)
    assert np.mean(np.array(seen["answers"]) <= 0.05) > 0.2, "answers alone are no units"


def test_a_difference_between_groups_is_found_and_none_between_places_that_cannot_change():
    groups = np.repeat(np.arange(4), 30)
    values = (groups == 2).astype(float)
    assert beyond_chance(values, groups, np.arange(120), 0 * groups) == 1 / 2001
    assert beyond_chance(values, groups, np.arange(120), groups) == 1.0  # all of a block are in one group


def test_the_variance_between_groups_of_one_and_of_three_by_hand():
    # About their mean of 4.2 they are 1.8, 0.8 and, together in the third, -2.6: 3.24 + 0.64 + 6.76 / 3 = 6.13. The
    # other pairs alone have 8.13, 10.8 and 16.13, so that no placing is below what is found.
    values, groups = np.array([6, 5, 2, 2, 6.0]), np.array([0, 1, 2, 2, 2])
    assert beyond_chance(values, groups, np.arange(5), np.zeros(5, int)) == 1.0
