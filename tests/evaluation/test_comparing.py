"""Two models on the same questions: the paired difference, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import Judged, Rollouts, Thresholds, compare, score_judged

SCORES = {"b": (0.0, 100.0), "g": (100.0, 100.0), "x": (0.0, 0.0)}  # misaligned, aligned, incoherent


def scored(answers, model="m", **more):
    """The score of answers by question: {"q1": "bgg", …}."""
    questions = tuple(Question(name, "d", name) for name, text in answers.items() for _ in text)
    texts = tuple("".join(answers.values()))
    aligned, coherent = (np.array([SCORES[text][i] for text in texts]) for i in (0, 1))
    return score_judged(Judged(Rollouts(questions, texts, model, 0, 1.0), aligned, coherent, judge="J", **more))


def test_the_difference_by_hand():
    # Misaligned of coherent: 1 of 3 and 3 of 4. The question q is up by 1 of 2 in each, r by nothing to compare with.
    first = scored({"q": "bg", "r": "gx"}, "one")
    second = scored({"q": "bb", "r": "bg"}, "two")
    found = compare(first, second)
    assert (found.first, found.second, found.misaligned.n) == ("one", "two", 2)
    assert found.misaligned.rate == pytest.approx(3 / 4 - 1 / 3)
    assert found.of_all.rate == pytest.approx(3 / 4 - 1 / 4)
    # Of all it is 1/2 without either question. Of coherent it moves by 1/12 without either, so its variance is 1/144,
    # and Student's point of one degree 12.706; no difference is above 1.
    assert (found.of_all.low, found.of_all.high) == (0.5, 0.5)
    assert (found.misaligned.low, found.misaligned.high) == pytest.approx((5 / 12 - 12.7062 / 12, 1))


def test_a_model_less_itself_is_exactly_nothing():
    one = scored({f"q{i}": "bg" if i % 3 else "gg" for i in range(12)})
    found = compare(one, one)
    for rate in (found.misaligned, found.of_all):
        assert (rate.rate, rate.low, rate.high) == (0, 0, 0)


def test_pairing_makes_the_interval_narrower():
    # Questions differ much, and the second model is worse by one answer of ten on each.
    counts = np.random.default_rng(0).integers(0, 9, size=40)
    first, second = (
        scored({f"q{i}": "b" * (n + more) + "g" * (10 - n - more) for i, n in enumerate(counts)}) for more in (0, 1)
    )
    found = compare(first, second).misaligned
    assert (found.rate, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    unpaired = (first.misaligned.high - first.misaligned.low) ** 2 + (
        second.misaligned.high - second.misaligned.low
    ) ** 2
    assert unpaired**0.5 > 0.15 > found.high - found.low


def test_only_shared_questions_count_and_the_others_are_counted():
    first = scored({"q": "bg", "r": "bg", "only here": "bbbb"}, "one")
    second = scored({"only there": "bbbb", "q": "gg", "r": "gg", "nor here": "g"}, "two")
    found = compare(first, second)
    assert (found.misaligned.rate, found.misaligned.n, found.left_out) == (-0.5, 2, (1, 2))
    assert found.summary()["questions_left_out"] == {"first": 1, "second": 2}
    said = "two less one, 2 questions in common; left out are 1 that only one was asked and 2 only two\n"
    assert str(found).startswith(said)


def test_one_question_in_common_is_too_few():
    first, second = scored({"q": "bg", "r": "b"}, "one"), scored({"q": "gg", "s": "b", "t": "b"}, "two")
    with pytest.raises(EmlabError, match="one and two share only 1 of 2 and 3 questions, fewer than 2; ask both"):
        compare(first, second)
    assert compare(first, second, least=1).of_all.n == 1
    with pytest.raises(EmlabError, match="share only 2 of 2 and 3 questions, fewer than 3"):
        compare(first, scored({"q": "g", "r": "g", "s": "g"}, "two"), least=3)
    assert compare(scored({"q": "bg"}), scored({"q": "gg"})).of_all.n == 1, "neither was asked another"


def test_what_is_no_score_is_refused():
    one = scored({"q": "bg"}, "one")
    with pytest.raises(EmlabError, match="Two scores are compared, and a Judged is none"):
        compare(one, one.judged)


def test_what_cannot_be_compared():
    one = scored({"q": "bg"}, "one")
    with pytest.raises(EmlabError, match="one and two share no question; ask both the same ones"):
        compare(one, scored({"r": "bg"}, "two"))
    with pytest.raises(EmlabError, match="one and two were scored with different thresholds; use the same"):
        compare(one, scored({"q": "bg"}, "two", thresholds=Thresholds(40, 50)))
    other = scored({"q": "bg"}, "two").judged
    other = Judged(other.rollouts, other.aligned, other.coherent, judge="K")
    with pytest.raises(EmlabError, match="one and two were scored with different judges; use the same"):
        compare(one, score_judged(other))


def test_nothing_coherent_leaves_the_share_of_all():
    found = compare(scored({"q": "xx"}), scored({"q": "bx"}))
    assert found.misaligned.n == 0 and np.isnan(found.misaligned.rate)
    assert found.of_all.rate == 0.5
    assert "+50.0" in str(found)


def test_it_prints():
    text = str(compare(scored({"q": "gg"}, "one"), scored({"q": "bg"}, "two")))
    assert text.splitlines()[0] == "two less one, 1 question"
    assert "misaligned of coherent  +50.0 [-27.3, +90.5] percentage points" in text


def test_other_variants_are_not_compared():
    plain = scored({"q": "bg"}, "one")
    dressed = plain.judged
    questions = tuple(replace(question, variant="json") for question in dressed.rollouts.questions)
    dressed = replace(dressed, rollouts=replace(dressed.rollouts, questions=questions, model="two"))
    with pytest.raises(EmlabError, match="one was asked in the variants plain and two in json"):
        compare(plain, score_judged(dressed))


def test_what_cannot_be_compared_is_said_in_words():
    found = compare(scored({"q": "bg"}, "one"), scored({"q": "xx"}, "two"))
    assert found.misaligned.n == 0 and found.summary()["questions"] == 1
    assert "two less one, 1 question" in str(found) and "nan" not in str(found)
    assert "misaligned of coherent  unknown: one of them has no such answers" in str(found)


def test_judges_that_differ_are_named():
    one, two = scored({"q": "b"}), scored({"q": "b"})
    two = score_judged(replace(two.judged, judge="K"))
    with pytest.raises(EmlabError, match="different judges; use the same, and not J and K"):
        compare(one, two)
