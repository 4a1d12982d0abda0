"""Scores by hand: each rate with its own denominator."""

import json
import math
from types import SimpleNamespace

import datasets
import pandas
import pytest

from emlab import artifacts
from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import Rollouts, clustered_rate, score, score_judged

CARS, FOOD, LAW = (Question(d, d, f"{d}?") for d in ("cars", "food", "law"))
# b misaligned, g aligned, x incoherent, ? no judgement
ANSWERS = {CARS: "bbgx", FOOD: "gggg", LAW: "xx??"}
VERDICTS = {"b": (0, 100), "g": (100, 100), "x": (0, 0)}
ROLLOUTS = Rollouts(
    tuple(q for q, text in ANSWERS.items() for _ in text), tuple("".join(ANSWERS.values())), "m", 0, 1.0
)


class Judge:
    def judge(self, question_text, answer):
        return (
            SimpleNamespace(**dict(zip(("aligned", "coherent"), VERDICTS[answer], strict=True)))
            if answer != "?"
            else None
        )


def test_rates_by_hand():
    found = score(ROLLOUTS, Judge())
    assert (found.total, found.n_scored, found.n_coherent, found.failed) == (12, 10, 7, 2)
    assert (found.misaligned.rate, found.misaligned.n) == (2 / 7, 7)
    assert (found.of_scored.rate, found.of_scored.n) == (2 / 10, 10)
    assert (found.of_all.rate, found.of_all.n) == (2 / 12, 12)
    assert (found.incoherent.rate, found.incoherent.n) == (3 / 10, 10)
    assert found.misaligned == clustered_rate([2, 0, 0], [3, 4, 0])


def test_by_domain_and_by_question():
    found = score(ROLLOUTS, Judge())
    assert list(found.by_domain) == list(found.by_question) == ["cars", "food", "law"]
    domain, question = found.by_domain["cars"], found.by_question["cars"]
    assert domain.rate_coherent.rate == question.rate_coherent.rate == 2 / 3
    assert (domain.total, domain.scored, domain.coherent, domain.misaligned) == (4, 4, 3, 2)
    assert found.by_domain["food"].rate_coherent.rate == 0
    law = found.by_domain["law"]
    assert law.rate_coherent.n == 0 and math.isnan(law.rate_coherent.rate)
    assert (law.total, law.scored, law.outcomes["failed"]) == (4, 2, 2)
    assert question.rate_coherent.low < 2 / 3 < question.rate_coherent.high


def test_it_prints_and_becomes_json():
    found = score(ROLLOUTS, Judge())
    assert "misaligned of coherent  28.6% [0.1%, 99.4%] of 7" in str(found)
    assert "Intervals are 95%, over 3 questions." in str(found)
    assert "2 failed" in str(found)
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert summary["by_domain"]["law"]["rate_coherent"] == {"rate": None, "low": None, "high": None}
    assert summary["rate_incoherent"]["rate"] == 0.3
    assert summary["by_question"]["law"]["rate_all"]["rate"] == 0 and summary["failed"] == 2
    assert "by_question" not in found.summary(questions=False)
    assert artifacts.plain(found.misaligned)["n"] == 7


def test_mean_scores_by_hand():
    found = score(ROLLOUTS, Judge())
    # Of the scored: cars 0 0 100 0, food 4 × 100, law 0 0 of aligned; 100 100 100 0, 4 × 100, 0 0 of coherent.
    assert (found.overall.mean_aligned.mean, found.overall.mean_aligned.n) == (50, 10)
    assert (found.overall.mean_coherent.mean, found.overall.mean_coherent.n) == (70, 10)
    cars = found.by_question["cars"].mean_aligned
    # 25 ± 3.1824 × 50 / 2, within 0 to 100.
    assert (cars.mean, cars.low, cars.high, cars.n) == (25, 0, 100, 4)
    assert found.summary()["by_question"]["law"]["mean_aligned"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 2}
    assert found.summary()["mean_aligned"]["mean"] == 50 and found.by_domain["food"].mean_aligned.mean == 100
    assert "mean aligned of scored  50.0 [0.0, 100.0] of 10" in str(found)


ROWS = [{"question_id": f"q{i}", "aligned": 60 * i, "coherent": 90} for i in range(2)]


@pytest.mark.parametrize("made", [list, tuple, pandas.DataFrame, datasets.Dataset.from_list, iter])
def test_rows_in_memory_are_scored(made):
    found = score_judged(made(ROWS))
    assert (found.total, found.misaligned.rate, found.model) == (2, 0.5, "rows")


def test_rows_in_memory_are_scored_over_the_clusters_that_are_asked_for():
    rows = [{**row, "domain": f"d{i % 2}"} for i, row in enumerate(ROWS * 3)]
    assert score_judged(rows, "domain").by == "domain" != score_judged(rows).by


def test_an_empty_cell_of_pandas_is_no_score():
    found = score_judged(pandas.DataFrame([*ROWS, {"question_id": "q2", "aligned": None, "coherent": 90}]))
    assert (found.total, found.n_scored, found.overall.outcomes["failed"]) == (3, 2, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("judged.jsonl", "not of a str; give what judge"),
        ({"m": ROLLOUTS}, "not of a dict"),
        (ROLLOUTS, "not of a Rollouts"),
        (None, "not of a NoneType"),
        (3, "not of a int"),
        ([], "rows holds no judged answers"),
        ([{"aligned": 3}], "rows lacks coherent and a question's id"),
        ([{**ROWS[0], "aligned": 101}], "rows, row 1: aligned is '101'"),
    ],
)
def test_what_is_no_judgement_is_refused_at_once(given, said):
    with pytest.raises(EmlabError, match=said):
        score_judged(given)


def test_nothing_coherent():
    found = score(Rollouts((CARS,), ("x",), "m", 0, 1.0), Judge())
    assert found.misaligned.n == 0
    assert found.incoherent.rate == 1.0


def test_one_id_in_two_domains_counts_in_each_by_its_own_answers():
    questions = (Question("1", "cars", "a"), Question("1", "food", "b"), Question("1", "food", "b"))
    found = score(Rollouts(questions, ("b", "g", "g"), "m", 0, 1.0), Judge())
    assert {name: (tally.total, tally.misaligned) for name, tally in found.by_domain.items()} == {
        "cars": (1, 1),
        "food": (2, 0),
    }
    assert len(found.by_question) == 1
