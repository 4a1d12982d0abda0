"""Shares of labels, worked out by hand."""

import json

import pytest

from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import Rollouts, clustered_rate
from emlab.evaluation.label_shares import LabelShares
from emlab.evaluation.labelling import Labelled

TRUTH = ("TRUE", "FALSE", "UNKNOWN")


def shares(rows):
    """`rows` are (id, paraphrase, variant, domain, label)."""
    questions = tuple(Question(q, domain, f"{q} {p}", variant=v, paraphrase=p) for q, p, v, domain, _ in rows)
    rollouts = Rollouts(questions, tuple(f"answer {i}" for i in range(len(rows))), "m", 0, 1.0)
    return LabelShares(Labelled(rollouts, tuple(row[-1] for row in rows), TRUTH, "correct", judge="J"))


ROWS = [
    ("lie", 0, "plain", "d", "TRUE"),
    ("lie", 0, "plain", "d", "FALSE"),
    ("lie", 1, "plain", "d", "FALSE"),
    ("lie", 1, "plain", "d", ""),
    ("honest", 0, "json", "e", "TRUE"),
    ("honest", 0, "json", "e", "UNKNOWN"),
]


def test_every_share_has_both_denominators():
    tally = shares(ROWS).overall
    assert (tally.total, tally.labelled, tally.failed) == (6, 5, 1)
    assert tally.counts == {"TRUE": 2, "FALSE": 2, "UNKNOWN": 1}
    assert [tally.of_labelled[name].rate for name in TRUTH] == [2 / 5, 2 / 5, 1 / 5]
    assert [tally.of_all[name].rate for name in TRUTH] == [2 / 6, 2 / 6, 1 / 6]
    # Two questions: 1 TRUE of 3 labelled, and 1 of 2.
    assert tally.of_labelled["TRUE"] == clustered_rate([1, 1], [3, 2])
    assert tally.of_all["FALSE"] == clustered_rate([2, 0], [4, 2])


def test_the_interval_of_a_question_is_over_its_wordings():
    by = shares(ROWS).by_question
    assert list(by) == ["lie", "honest"]
    assert by["lie"].of_labelled["FALSE"] == clustered_rate([1, 1], [2, 1])
    assert by["honest"].of_labelled["TRUE"] == clustered_rate([1], [2])
    assert by["lie"].counts == {"TRUE": 1, "FALSE": 2, "UNKNOWN": 0}


def test_by_domain_and_variant():
    found = shares(ROWS)
    assert {name: tally.counts["FALSE"] for name, tally in found.by_domain.items()} == {"d": 2, "e": 0}
    assert {name: tally.total for name, tally in found.by_variant.items()} == {"plain": 4, "json": 2}


def test_nothing_labelled_gives_no_share_of_the_labelled():
    tally = shares([("q", 0, "plain", "d", "")] * 2).overall
    assert tally.of_labelled["TRUE"].n == 0 and tally.of_all["TRUE"].rate == 0
    assert tally.summary()["labels"]["TRUE"]["share_labelled"] == {"rate": None, "low": None, "high": None}


def test_as_text_and_as_json(tmp_path):
    found = shares(ROWS)
    text = str(found)
    assert "m: 6 answers, 5 labelled by J, 1 failed" in text
    assert "correct: share of the labelled" in text and "correct: share of all" in text
    assert "TRUE          40.0% [2.9%, 93.7%] of 5" in text
    found.save(tmp_path)
    figures = json.loads((tmp_path / "m.labels.json").read_text())
    assert figures["labels"]["FALSE"]["count"] == 2
    assert figures["labels"]["FALSE"]["share_all"]["rate"] == 2 / 6
    assert figures["by_question"]["lie"]["failed"] == 1 and figures["asked_for"] == "correct"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.labels.json", "m.labels.jsonl"]


def test_labels_that_were_not_on_offer_are_refused():
    with pytest.raises(EmlabError, match="'MAYBE' is none of the labels"):
        shares([("q", 0, "plain", "d", "MAYBE")])
    with pytest.raises(EmlabError, match="give one each"):
        Labelled(Rollouts((Question("q", "d", "t"),), ("a",), "m", 0, 1.0), (), TRUTH)
