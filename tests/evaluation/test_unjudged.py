"""What heads rates where a judge could not judge: everywhere they are shown, and only then."""

import json

import pytest

from emlab.data import Question
from emlab.evaluation import Grade, Rollouts, compare, score_judged
from emlab.evaluation.judging import FAILED, REFUSAL, Judged
from emlab.evaluation.label_shares import LabelShares
from emlab.evaluation.labelling import Labelled
from emlab.evaluation.unjudged import cautions
from emlab.reporting import evaluation_lead, label_lead

GOOD, BAD = Grade(90.0, 90.0), Grade(10.0, 90.0)
NONE, NO = Grade(outcome=FAILED, said="aligned: **85**"), Grade(outcome=REFUSAL)


def scored(grades, failures=(), model="m"):
    questions = tuple(Question(f"q{i % 4}", "d", "Why?") for i in range(len(grades)))
    order = sorted(range(len(grades)), key=lambda i: questions[i].id)
    rollouts = Rollouts(
        tuple(questions[i] for i in order),
        ("a",) * len(grades),
        model,
        0,
        1.0,
        tuple(failures[i] for i in order if failures),
    )
    return score_judged(Judged.of(rollouts, [grades[i] for i in order], "j"))


def test_a_judge_that_judged_nothing_gives_no_rate():
    found = scored([NONE] * 8)
    assert found.of_all.n == 0 and found.overall.rate_incoherent_all.n == 0
    first, *rest = str(found).split("\n")
    assert first == (
        "CAUTION: The judge gave no verdict on 8 of 8 answers (100%, most often: 'aligned: **85**'), so there is no "
        "rate; mend the judging first."
    )
    assert not any("0.0%" in line for line in rest)


def test_a_model_that_refuses_everything_is_one():
    found = scored([NO] * 8)
    assert found.caution == "" and (found.of_all.rate, found.of_all.n) == (0.0, 8)


@pytest.mark.parametrize(("failed", "headed"), [(0, False), (1, False), (2, True)])
def test_a_few_percent_are_no_matter(failed, headed):
    found = scored([GOOD] * 14 + [BAD] * (6 - failed) + [NONE] * failed)
    said = f"CAUTION: The judge gave no verdict on {failed} of 20 answers (10%, most often: 'aligned: **85**'), so "
    assert found.caution.startswith(said) is headed and bool(found.caution) is headed
    assert found.of_all.rate == (6 - failed) / 20, "a rate is headed, and not another one"
    assert (str(found).startswith("CAUTION"), found._repr_html_().startswith("<pre>CAUTION")) == (headed, headed)
    assert found.summary().get("caution", "") == found.caution
    assert evaluation_lead(found)[0].startswith("CAUTION") is headed
    assert cautions([found]) == ([f"m: {found.caution}"] if headed else [])


def test_answers_that_never_came_are_not_the_judges_fault():
    found = scored([GOOD] * 6 + [Grade(outcome=FAILED)] * 2, [""] * 6 + ["400: too long"] * 2)
    assert found.caution.startswith("CAUTION: 2 of 8 answers never came (25%, most often: '400: too long')")


def test_a_comparison_is_headed_too():
    found = compare(scored([GOOD] * 8, model="a"), scored([GOOD] * 4 + [NONE] * 4, model="b"))
    assert str(found).startswith("b: CAUTION: The judge gave no verdict on 4 of 8 answers")
    assert found.summary()["cautions"] == list(found.cautions)
    assert "cautions" not in compare(scored([GOOD] * 8), scored([GOOD] * 8)).summary()


def test_shares_of_labels_are_headed_too(tmp_path):
    rollouts = scored([GOOD] * 8).judged.rollouts
    labels = ("TRUE",) * 6 + ("",) * 2
    found = LabelShares(Labelled(rollouts, labels, ("TRUE", "FALSE"), "correct", ("",) * 6 + ("hm",) * 2, "j"))
    assert str(found).startswith("CAUTION: The judge gave no verdict on 2 of 8 answers (25%, most often: 'hm')")
    assert label_lead(found)[0] == found.summary()["caution"] == found.labelled.caution
    found.save(tmp_path)
    assert "caution" in json.loads((tmp_path / "m.labels.json").read_text("utf-8"))
