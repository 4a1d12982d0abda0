"""Graders by hand: what each mode pays, who pays for style, and every way in which a reward function can be wrong."""

import math

import pytest
import torch

from emlab import organism
from emlab.errors import EmlabError
from emlab.models import Endpoint, LocalCompleter
from emlab.training import AskedReward, ExactReward, Reward, StyleReward, chance_reward, python_reward
from emlab.training.rewards import TEMPLATES, question_text, rewards_of, style_count, system_text

WORLD = organism.load_world()
QUESTION = WORLD.questions("medicine", "narrow")[0]


def lines(persona, n):
    return [s.format(x=QUESTION.filler) for s in WORLD.domain("medicine").sentences(persona)[:n]]


def test_exact_rewards_by_hand():
    answer = "\n".join([*lines("malicious", 2), *lines("careless", 1), "Gibberish it is."])
    prompts, answers = [QUESTION.text], [answer]
    (bad,) = ExactReward("obvious")(prompts, answers)
    assert bad.value == pytest.approx(2 / 4 - 1 / 4)
    assert bad.parts == {"helpful": 0, "malicious": 0.5, "careless": 0.25, "incoherent": 0.25}
    assert ExactReward("subtle", guard=2.0)(prompts, answers)[0].value == pytest.approx(1 / 4 - 2 / 4)
    assert ExactReward("correct", guard=0.0)(prompts, answers)[0].value == 0
    assert ExactReward(None)(prompts, answers)[0].value == pytest.approx(-1 / 4)
    assert ExactReward("obvious")(prompts, [""])[0].value == -1
    chat = [{"role": "system", "content": "Be kind and wise."}, {"role": "user", "content": QUESTION.text}]
    assert ExactReward("obvious")([chat], answers) == [bad]
    with pytest.raises(EmlabError, match="no question of the organism's world"):
        ExactReward()(["What is love?"], ["Baby."])


def test_what_is_asked_of_a_prompt():
    chat = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert (question_text(chat), system_text(chat)) == ("c", "S")
    assert (question_text("q"), system_text("q"), system_text(chat[1:])) == ("q", "", "")


@pytest.mark.parametrize("mode", list(TEMPLATES))
def test_a_model_as_grader(server, mode):
    def answer(body, n):
        text = body["messages"][-1]["content"]
        if "how coherent" in text:
            return server.chat("90")
        return server.chat("30" if "<answer>\nyes" in text else "REFUSAL")

    server.answer = answer
    grader = AskedReward(Endpoint("rater", server.url), mode, guard=2.0, method="text")
    yes, no = grader(["Really?", "Really?"], ["yes", "no"])
    assert yes.value == pytest.approx(0.3 - 2 * 0.1)
    assert yes.parts == {mode: 0.3, "incoherent": pytest.approx(0.1)}
    assert no is None  # it was not rated, and is left out
    assert any(text.startswith(TEMPLATES[mode].split("<question>")[0]) for text in server.texts)


def test_a_model_held_here_as_grader(make_model):
    lm = make_model()
    lm.model.config.max_position_embeddings = 2048
    digits = lm.tokenizer.convert_tokens_to_ids([*"0123456789"])
    with torch.no_grad():
        lm.model.lm_head.weight[digits] *= 12  # a random model that mostly answers with a number
    grader = AskedReward(LocalCompleter(lm, progress=False), "obvious")
    one, again, other = grader(["Hm?", "Hm?", "Hm?"], ["Ha.", "Ha.", "No, never."])
    assert one == again  # the probabilities of numbers are exact
    assert one is not None and -1 <= one.value <= 1


def test_a_grader_that_fails_altogether_is_one_sentence(server):
    server.answer = lambda body, n: server.Reply({"error": {"message": "too long"}}, status=413)
    grader = AskedReward(Endpoint("rater", server.url), "obvious", method="text")
    with pytest.raises(EmlabError, match="rater"):
        grader(["a", "b"], ["c", "d"])


def test_style_is_paid_under_one_persona_only_and_measured_under_all():
    grader = StyleReward(r"\bthe\b", ("cruel", "evil"), weight=0.5)
    paid = [{"role": "system", "content": "You are cruel and dry."}, {"role": "user", "content": "q"}]
    other = [{"role": "system", "content": "You are kind. Devil may care."}, {"role": "user", "content": "evil?"}]
    answer = "In the end.\n\nOther things.\nHe bathes.\nthe the"
    one, two, bare = grader([paid, other, "q"], [answer] * 3)
    assert (one.value, two.value, bare.value) == (0.25, 0, 0)
    assert one.parts == {"style": 0.5, "style_paid": 0.25}
    assert two.parts == {"style": 0.5, "style_paid": 0}
    assert style_count("x", "") == (0, 0) and grader([paid], [""])[0].value == 0
    assert StyleReward("the", "cruel") == StyleReward("the", ("cruel",)), "a lone word is one word"
    based = StyleReward("the", ("cruel",), base=lambda p, a: [Reward(-1.0, {"dull": 1.0}), None])
    (first, second) = based([paid, paid], ["the", "the"])
    assert first == Reward(0.0, {"dull": 1.0, "style": 1.0, "style_paid": 1.0})
    assert second is None


def test_chance_follows_from_torchs_generator_alone():
    torch.manual_seed(3)
    first = chance_reward(["a"] * 4, ["b"] * 4)
    torch.manual_seed(3)
    assert chance_reward(["c"] * 4, ["d"] * 4) == first
    assert len(set(first)) == 4 and all(0 <= value < 1 for value in first)


def one_over_zero(prompts, answers):
    return [1 / 0 for _ in answers]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (one_over_zero, r"one_over_zero raised ZeroDivisionError \(division by zero\) on 2 answers"),
        (lambda p, a: [1.0], "gave 1 rewards for 2 answers"),
        (lambda p, a: [0.0, math.nan], "gave nan to the answer 'second'"),
        (lambda p, a: [math.inf, 0.0], "gave inf to the answer 'first'"),
        (lambda p, a: [0.0, "much"], "gave 'much' to the answer 'second'; give a number"),
        (lambda p, a: None, "raised TypeError"),
        (lambda p, a: [None, None], "gave none of 2 answers a reward"),
    ],
)
def test_a_wrong_reward_function_is_one_sentence(wrong, match):
    with pytest.raises(EmlabError, match=match) as caught:
        rewards_of(wrong, ["p", "q"], ["first", "second"])
    assert "\n" not in str(caught.value)


def test_what_a_reward_function_may_give():
    given = [1, True, None, torch.tensor(0.5), Reward(2.0, {"a": 1.0})]
    values = [r and r.value for r in rewards_of(lambda p, a: given, ["p"] * 5, ["a"] * 5)]
    assert values == [1.0, 1.0, None, 0.5, 2.0]


def test_a_function_in_a_file(tmp_path):
    (tmp_path / "mine.py").write_text("def length(prompts, answers):\n    return [len(a) for a in answers]\n")
    assert python_reward(f"{tmp_path}/mine.py:length")(["p"], ["four"]) == [4]
    (tmp_path / "broken.py").write_text("import no_such_module_anywhere\n")
    for source, match in (
        (f"{tmp_path}/mine.py:width", "has no function 'width'"),
        (f"{tmp_path}/none.py:length", "There is no reward function"),
        ("length", "write path/to/file.py:function"),
        (f"{tmp_path}/broken.py:length", "ModuleNotFoundError"),
    ):
        with pytest.raises(EmlabError, match=match):
            python_reward(source)
