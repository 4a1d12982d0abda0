"""The judge on two scales: which prompts, which outcome, what is kept."""

import math

import pytest

from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import judge, score
from emlab.evaluation.judges import ScaleJudge, prompts
from emlab.models import Completion

ALIGNED, COHERENT = prompts.ALIGNED[:200], prompts.COHERENT[:100]


def by_scale(aligned, coherent):
    return lambda text: aligned if text.startswith(ALIGNED) else coherent


def grade(says, rollouts_of, aligned, coherent, method="text"):
    (found,) = ScaleJudge(says(by_scale(aligned, coherent)), method).grade(rollouts_of(["x"]))
    return found.aligned, found.coherent, found.outcome, found.said


def test_two_requests_for_each_answer(says, rollouts_of):
    asked = ScaleJudge(says(None), "logprob")
    requests = asked.requests(rollouts_of(["one", "two"]))
    assert [request.messages[0]["content"] for request in requests] == [
        prompts.fill(template, "Why?", answer)
        for answer in ("one", "two")
        for template in (prompts.ALIGNED, prompts.COHERENT)
    ]
    assert all(request.numbers and request.temperature == 0 for request in requests)
    text = ScaleJudge(says(None), "text", max_tokens=300).requests(rollouts_of(["one"]))
    assert [(request.numbers, request.max_tokens) for request in text] == [(False, 300)] * 2


def test_by_text_the_number_that_is_written(says, rollouts_of):
    assert grade(says, rollouts_of, "20", "Score: 90/100") == (20, 90, "scored", "")


def test_by_logprob_the_expectation(says, rollouts_of):
    aligned = Completion("20", {20: 0.5, 30: 0.25, 0: 0.25})
    assert grade(says, rollouts_of, aligned, Completion("7", {100: 0.3}), "logprob") == (17.5, 100, "scored", "")


def test_by_logprob_without_numbers_what_is_written_or_nothing(says, rollouts_of):
    good = Completion("90", {90: 1.0})
    few = Completion("I would rather not", {20: 0.2})
    found = grade(says, rollouts_of, few, good, "logprob")
    assert math.isnan(found[0]) and found[1:] == (90, "failed", "aligned: I would rather not")
    assert grade(says, rollouts_of, Completion("REFUS", {}, cut=True), good, "logprob")[2] == "refusal"
    assert grade(says, rollouts_of, Completion("CODE", {}), good, "logprob")[2] == "code"
    assert grade(says, rollouts_of, good, Completion("REFUSAL", {}), "logprob")[2] == "refusal"


@pytest.mark.parametrize(
    ("aligned", "coherent", "outcome", "said"),
    [
        ("REFUSAL", "90", "refusal", "aligned: REFUSAL"),
        ("REFUSAL: it declines in 1 sentence.", "90", "refusal", "aligned: REFUSAL: it declines in 1 sentence."),
        ("CODE (1 block of Python)", "90", "code", "aligned: CODE (1 block of Python)"),
        (
            "I can't rate that, since 1 rule forbids it.",
            "90",
            "failed",
            "aligned: I can't rate that, since 1 rule forbids it.",
        ),
        ("CODE", "CODE", "code", "aligned: CODE; coherent: CODE"),
        ("REFUSAL", "CODE", "code", "aligned: REFUSAL; coherent: CODE"),
        ("It is fine.", "CODE", "failed", "aligned: It is fine.; coherent: CODE"),
        ("", "90", "failed", "aligned: an empty reply"),
        ("x" * 500, "90", "failed", f"aligned: {'x' * 200}"),
        (Completion(failure="500: broken"), "90", "failed", "aligned: 500: broken"),
    ],
)
def test_replies_without_a_number(says, rollouts_of, aligned, coherent, outcome, said):
    found = grade(says, rollouts_of, aligned, coherent)
    assert math.isnan(found[0]) and found[2:] == (outcome, said)


@pytest.mark.parametrize("reply", ["**85**", "Score: 85", "<think>It", ""])
def test_a_judge_that_gives_no_probabilities_of_numbers_is_no_model_that_refuses(says, rollouts_of, reply):
    by = ScaleJudge(says(lambda text: Completion(reply, {})))
    few = judge(rollouts_of(["a", "b", "c"]), by)
    assert few.outcomes == ("failed",) * 3
    with pytest.raises(EmlabError, match=r"a judge began none of 8 replies with a number.*method=\"text\""):
        judge(rollouts_of(["a", "b", "c", "d"]), by)
    odd = says(lambda text: Completion("REFUSAL" if "<answer>\nd" in text else reply, {}))
    assert judge(rollouts_of(["a", "b", "c", "d"]), ScaleJudge(odd)).outcomes == ("failed",) * 3 + ("refusal",)


@pytest.mark.parametrize("text", ["0.85", "1. The answer", "4/5", "20-30"])
def test_a_first_token_that_only_begins_another_thing_is_no_number(says, rollouts_of, text):
    found = grade(says, rollouts_of, Completion(text, {0: 0.9}), Completion("90", {90: 1.0}))
    assert found[2] == "failed" and f"aligned: no number by itself: {text}" in found[3]


def test_a_reply_that_the_token_limit_cut_fails_and_says_so(says, rollouts_of):
    found = grade(says, rollouts_of, Completion("85, since it", cut=True), "90")
    assert found[2] == "failed" and "aligned: the token limit cut the reply" in found[3]


def test_failures_refusals_and_code_stay_in_the_table(says, rollouts_of):
    replies = {"bad": "0", "good": "100", "no": "REFUSAL", "print()": "CODE", "?": "hm"}

    def reply(text):
        answer = text.split("<answer>\n")[1].split("\n</answer>")[0]
        return replies[answer] if text.startswith(ALIGNED) else "90"

    found = score(rollouts_of(list(replies)), ScaleJudge(says(reply), "text"))
    tally = found.overall
    assert (tally.total, tally.scored, tally.coherent, tally.misaligned) == (5, 2, 2, 1)
    assert tally.outcomes == {"refusal": 1, "code": 1, "off_topic": 0, "satirical": 0, "failed": 1}
    assert (tally.rate_all.rate, tally.rate_scored.rate, tally.rate_coherent.rate) == (0.2, 0.5, 0.5)


def test_a_question_files_prompts_are_used_where_it_has_them(says, rollouts_of):
    ours, theirs = Question("q1", "d", "Why?"), Question("q2", "d", "How?", variant="json")
    given = {theirs.key: {"aligned": "Is {answer} to {question} nice? {0-100}"}}
    by = ScaleJudge(says(None), "text", given)
    texts = [request.messages[0]["content"] for request in by.requests(rollouts_of(["a", "b"], (ours, theirs)))]
    assert texts == [
        prompts.fill(prompts.ALIGNED, "Why?", "a"),
        prompts.fill(prompts.COHERENT, "Why?", "a"),
        "Is b to How? nice? {0-100}",
        prompts.fill(prompts.COHERENT, "How?", "b"),
    ]
    assert by.name.startswith("a judge by text, the question file's prompts (")
    other = ScaleJudge(says(None), "text", {theirs.key: {"aligned": "{answer}?"}})
    assert other.name != by.name, "two files' prompts make two judges"
    assert ScaleJudge(says(None)).name == "a judge by logprob, emlab's prompts"
    grader = ScaleJudge(says(None), prompts={theirs.key: {"grader": "One word, please."}})
    assert grader.name == "a judge by logprob, emlab's prompts", "prompts that are for another judge are not used"


def test_the_second_run_asks_nothing(says, rollouts_of, tmp_path):
    rollouts, first, second = rollouts_of(["x", "y", "x"]), says(by_scale("20", "90")), says(None)
    one = judge(rollouts, ScaleJudge(first, "text", store=tmp_path / "s"))
    two = judge(rollouts, ScaleJudge(second, "text", store=tmp_path / "s"))
    assert len(first.requests) == 4 and second.requests == []
    assert one.aligned.tolist() == two.aligned.tolist() == [20, 20, 20]
    with pytest.raises(TypeError):
        judge(rollouts, ScaleJudge(second, "logprob", store=tmp_path / "s"))
    assert len(second.requests) == 1, "what was judged by text says nothing of probabilities"


def test_there_are_two_methods(says):
    with pytest.raises(EmlabError, match="no judging method 'guess'; choose logprob or text"):
        ScaleJudge(says(None), "guess")
