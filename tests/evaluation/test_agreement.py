"""Two judges: Krippendorff's alpha against published examples and by hand, the confusion at the thresholds."""

import json
import math

import numpy as np
import pytest

from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import Judged, Rollouts, Thresholds
from emlab.evaluation.agreement import CLASSES, agreement

QUESTION = Question("q", "d", "Why?")


def judged(aligned, coherent=None, judge="J", answers=None, questions=None, **more):
    answers = tuple(answers or (f"answer {i}" for i in range(len(aligned))))
    coherent = [100.0] * len(aligned) if coherent is None else coherent
    rollouts = Rollouts(tuple(questions or (QUESTION,) * len(answers)), answers, "m", 0, 1.0)
    return Judged(rollouts, np.array(aligned, float), np.array(coherent, float), judge=judge, **more)


def test_alpha_nominal_of_krippendorffs_two_observers():
    # Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", A: ten articles, 0 or 1 by Meg and Owen,
    # alpha = 1 - 19 × 4 / (14 × 6) = 0.095. A 1 is written here as a misaligned answer.
    meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    first, second = (judged([0 if flag else 100 for flag in flags]) for flags in (meg, owen))
    found = agreement(first, second)
    assert found.alpha_misaligned == pytest.approx(1 - 19 * 4 / (14 * 6))
    assert found.alpha_misaligned == pytest.approx(0.095, abs=5e-4)
    assert found.confusion["misaligned"] == {"misaligned": 1, "aligned": 1, "incoherent": 0, "not scored": 0}
    assert found.confusion["aligned"]["misaligned"] == 3 and found.confusion["aligned"]["aligned"] == 5


def test_alpha_interval_of_krippendorffs_reliability_data_by_hand():
    # The same paper, C: observers A and B. Nine units have both values, and they differ in one, by 1:
    # D_o = 2 × 1² / 18. Of the 18 values 5 are 1, 7 are 2, 4 are 3, 2 are 4: their sum is 39 and that of their squares
    # 101, so D_e = 2 (18 × 101 - 39²) / (18 × 17) = 594 / 306.
    nan = math.nan
    a = [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan]
    b = [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3]
    found = agreement(judged(a), judged(b))
    assert found.n == 12
    assert found.alpha_aligned == pytest.approx(1 - (2 / 18) / (594 / 306))
    assert agreement(judged([50] * 12, a), judged([50] * 12, b)).alpha_coherent == found.alpha_aligned


def test_judges_that_agree_and_judges_that_disagree():
    values = [0, 10, 60, 90]
    assert agreement(judged(values), judged(values)).alpha_aligned == 1
    # Of two answers each judge turns the other's around: D_o = 100², D_e = 2 (4 × 20000 - 200²) / 12 = 6666.7.
    assert agreement(judged([0, 100]), judged([100, 0])).alpha_aligned == pytest.approx(1 - 10_000 / (80_000 / 12))


def test_where_alpha_is_undefined():
    same = agreement(judged([50, 50]), judged([50, 50]))
    assert math.isnan(same.alpha_aligned) and math.isnan(same.alpha_misaligned)
    none = agreement(judged([math.nan]), judged([50]))
    assert math.isnan(none.alpha_aligned) and none.summary()["alpha_aligned"] is None
    assert "nan" in str(none)


def test_every_answer_is_in_the_confusion_at_the_thresholds():
    nan = math.nan
    first = judged([29, 30, 0, nan, 0], [51, 51, 50, 90, 90])
    second = judged([30, 29, 29, 0, nan], [51, 51, 51, 50, 90])
    found = agreement(first, second)
    expected = {
        ("misaligned", "aligned"): 1,
        ("aligned", "misaligned"): 1,
        ("incoherent", "misaligned"): 1,
        ("not scored", "incoherent"): 1,
        ("misaligned", "not scored"): 1,
    }
    assert {(a, b): found.confusion[a][b] for a in CLASSES for b in CLASSES if found.confusion[a][b]} == expected
    loose = [judged([29, 40], thresholds=Thresholds(misaligned_below=50)) for _ in range(2)]
    assert agreement(*loose).confusion["misaligned"]["misaligned"] == 2


def test_answers_are_matched_by_question_variant_and_text_not_by_place():
    other, json_form = Question("r", "d", "How?"), Question("q", "d", "Why?", variant="json")
    first = judged([0, 50, 100], answers=["a", "a", "a"], questions=[QUESTION, other, json_form])
    second = judged([100, 0, 50], answers=["a", "a", "a"], questions=[json_form, QUESTION, other])
    assert agreement(first, second).alpha_aligned == 1
    twice = agreement(judged([0, 100], answers=["a", "a"]), judged([0, 100, 7], answers=["a", "a", "b"]))
    assert (twice.n, twice.alpha_aligned) == (2, 1), "an answer that was given twice is matched in order"


def test_judges_of_different_answers_cannot_be_compared():
    with pytest.raises(EmlabError, match="share no answer; give judgements of the same rollouts"):
        agreement(judged([0], answers=["a"]), judged([0], answers=["b"]))


def test_it_prints_and_becomes_json():
    found = agreement(judged([0, 100], judge="one"), judged([100, 100], judge="two"))
    text = str(found)
    assert "2 answers judged by one (rows) and two (columns)" in text
    assert "misaligned of coherent by one: 50.0%" in text and "misaligned of coherent by two: 0.0%" in text
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert summary["first"]["rate_coherent"]["rate"] == 0.5 and summary["second"]["rate_all"]["rate"] == 0
    assert summary["confusion"]["misaligned"]["aligned"] == 1


def test_the_rates_are_of_the_answers_that_both_judged():
    first = judged([0, 100, 0], answers=["a", "b", "c"])
    found = agreement(first, judged([0, 100], answers=["b", "a"]))
    assert (found.n, found.left_out, found.summary()["left_out"]) == (2, 1, 1)
    assert found.first.total == found.second.total == 2
    assert found.first.misaligned.rate == found.second.misaligned.rate == 0.5
    assert found.second.judged.rollouts.answers == ("a", "b")
    assert "1 judged by one of them alone are left out" in str(found)
    assert "left out" not in str(agreement(first, first))


def test_without_texts_answers_are_matched_by_order_and_that_is_said():
    other = Question("r", "d", "How?")
    questions = [QUESTION, QUESTION, other]
    first = judged([0, 100, 50], answers=[""] * 3, questions=questions)
    second = judged([50, 0, 100], answers=[""] * 3, questions=[other, QUESTION, QUESTION])
    found = agreement(first, second)
    assert found.alpha_aligned == 1 and found.by_order and found.summary()["matched_by"] == "order"
    assert "matched by order: neither file has the answers' texts" in str(found)
    texts = agreement(judged([0]), judged([0]))
    assert texts.summary()["matched_by"] == "text" and "by order" not in str(texts)


def test_without_texts_there_must_be_as_many_answers_to_each_question():
    first, second = judged([0, 1], answers=["", ""]), judged([0], answers=[""])
    with pytest.raises(EmlabError, match="no texts of answers and not as many answers to each question"):
        agreement(first, second)


def test_texts_in_one_file_alone_are_refused():
    first, second = judged([0, 1], answers=["a", "b"]), judged([0, 1], answers=["", ""])
    for one, two, which in ((first, second, "first"), (second, first, "second")):
        with pytest.raises(EmlabError, match=f"Only the {which} judge's file has the answers' texts"):
            agreement(one, two)


def test_the_same_answer_to_two_wordings_is_matched_by_its_wording():
    wordings = [QUESTION, Question("q", "d", "For what reason?", paraphrase=1)]
    first = judged([0, 100], answers=["Yes.", "Yes."], questions=wordings)
    second = judged([100, 0], answers=["Yes.", "Yes."], questions=wordings[::-1])
    assert agreement(first, second).alpha_aligned == 1
