"""The retest: who is asked what, in which frame, with which edits, and on which texts the losses are."""

import dataclasses

import pytest
import torch

from emlab.data import Dataset, Question
from emlab.errors import EmlabError
from emlab.evaluation import Sampling, score, text_loss
from emlab.interventions import Direction, Steer
from emlab.mitigation import Frame, Retest, Supervised, ask, retest
from emlab.mitigation.treatment import Treated
from emlab.sites import Site
from emlab.training import Recipe, finetune

SITE = Site("resid_post", 0)
QUESTIONS = [Question(f"q{i}", "power", f"question {i}") for i in range(4)]
SAMPLING = Sampling(per_question=1, max_new_tokens=6)
FRAMES = [Frame("broad"), Frame("kindly", system="You are kind.")]


class Judge:
    """Aligned by the answer's letters."""

    def judge(self, question, answer):
        return type("V", (), {"aligned": float(sum(map(ord, answer)) % 101), "coherent": 100.0})()


def chats(word, n=6):
    return [
        [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{word} {i}"}] for i in range(n)
    ]


@pytest.fixture(scope="module")
def training(make_qwen2):
    start = make_qwen2("start", max_position_embeddings=512, initializer_range=0.2)
    recipe = Recipe(steps=2, batch_size=2, learning_rate=3e-2)
    return Supervised(start, Dataset.of(chats("bad"), "bad"), recipe, 0)


@pytest.fixture(scope="module")
def treated(training):
    push = Direction(torch.eye(32)[3], SITE, "push")
    return Treated(training.start, (Steer(SITE, push, 1.0, 2.0, "sentence"),))


@pytest.fixture(scope="module")
def found(training, treated):
    return retest(treated, training, FRAMES, QUESTIONS, Judge(), chats("task"), chats("text", 4), SAMPLING, 2, seed=5)


def test_the_relapse_is_of_the_model_that_was_trained_on_its_edits_still_in_force(training, treated, found):
    relapsed = dataclasses.replace(treated, model=training.go_on(treated.model, 2))
    answers = ask(relapsed, QUESTIONS, FRAMES[0], SAMPLING, seed=5).answers
    assert found.relapse.judged.rollouts.answers == answers
    assert answers != found.scores["broad"].judged.rollouts.answers  # the model that has not relapsed says other things
    assert answers != ask(dataclasses.replace(relapsed, edits=()), QUESTIONS, FRAMES[0], SAMPLING, seed=5).answers
    assert answers != ask(relapsed, QUESTIONS, FRAMES[1], SAMPLING, seed=5).answers
    assert found.relapse.misaligned == score(ask(relapsed, QUESTIONS, FRAMES[0], SAMPLING, seed=5), Judge()).misaligned


def test_without_further_steps_there_is_no_relapse(training, treated):
    args = (FRAMES[:1], QUESTIONS, Judge(), chats("task"), chats("text"), SAMPLING)
    assert retest(treated, training, *args, relapse_steps=0).relapse is None


def test_each_frame_has_the_answers_of_the_treated_model_in_it(treated, found):
    for frame in FRAMES:
        said = found.scores[frame.name].judged.rollouts.answers
        assert said == ask(treated, QUESTIONS, frame, SAMPLING, seed=5).answers
    assert found.scores["broad"].judged.rollouts.answers != found.scores["kindly"].judged.rollouts.answers


def test_the_losses_are_of_the_task_and_of_other_text_under_the_edits(treated, found):
    assert found.task_loss == pytest.approx(text_loss(treated.model, chats("task"), treated.edits))
    assert found.ability_loss == pytest.approx(text_loss(treated.model, chats("text", 4), treated.edits))
    bare = text_loss(treated.model, chats("task"))
    assert len({round(loss, 4) for loss in (found.task_loss, found.ability_loss, bare)}) == 3


def test_it_comes_back_from_disk_as_it_was(training, treated, found, tmp_path):
    for name, one in (("with", found), ("without", dataclasses.replace(found, relapse=None))):
        (tmp_path / name).mkdir()
        one.save(tmp_path / name)
        back = Retest.load(tmp_path / name)
        assert (back.task_loss, back.ability_loss) == (one.task_loss, one.ability_loss)
        assert list(back.scores) == ["broad", "kindly"]
        for mine, theirs in zip(
            [*one.scores.values(), one.relapse], [*back.scores.values(), back.relapse], strict=True
        ):
            assert (mine and mine.judged.rollouts) == (theirs and theirs.judged.rollouts)
    (tmp_path / "with" / "retest.json").write_text("{}")
    with pytest.raises(EmlabError, match="holds no retest .*; write it with Retest.save"):
        Retest.load(tmp_path / "with")


def test_each_question_is_asked_as_often_as_the_sampling_says_and_its_system_turn_stands_first(treated):
    asked = [Question("a", "power", "why", system="Be brief."), Question("b", "power", "how")]
    frame = Frame("training", ending="!", openings=("say 1", "say 2", "say 3"))
    how = Sampling(per_question=2, temperature=0.9, max_new_tokens=6)
    found = ask(treated, asked, frame, how, seed=3)
    assert [q.text for q in found.questions] == ["why!", "why!", "how!", "how!"]
    assert (found.model, found.seed, found.temperature) == ("start", 3, 0.9)
    firsts = [[{"role": "user", "content": f"say {i}"}] for i in (1, 2, 3, 1)]
    said = how.generate(treated.model, firsts, 4, treated.edits)
    chats = []
    for first, answer, question in zip(firsts, said, found.questions, strict=True):
        *system, last = question.messages
        chats.append([*system, *first, {"role": "assistant", "content": answer}, last])
    assert chats[1][0] == {"role": "system", "content": "Be brief."} and len(chats[2]) == 3
    assert list(found.answers) == how.generate(treated.model, chats, 3, treated.edits)
    bare = [Question("a", "power", "why!"), Question("b", "power", "how!")]
    framed = ask(treated, asked, dataclasses.replace(frame, system="Be kind."), how, seed=3).answers
    kind = dataclasses.replace(frame, system="Be kind.", ending="")
    assert framed == ask(treated, bare, kind, how, seed=3).answers, "its system turn takes the place of the question's"


def test_a_relapse_takes_fifty_steps_if_nothing_else_is_said(treated):
    class Counting:
        def go_on(self, model, steps):
            self.steps = steps
            return model

    training = Counting()
    retest(treated, training, FRAMES[:1], QUESTIONS, Judge(), chats("task"), chats("text"), SAMPLING)
    assert training.steps == 50


def test_going_on_trains_the_model_that_is_given_on_the_same_chats_by_other_draws(training):
    first = training.run().model
    on = training.go_on(first, 3)
    same = finetune(first, training.chats, Recipe(steps=3, batch_size=2, learning_rate=3e-2), 1000, progress=False)
    texts = chats("bad")
    assert text_loss(on, texts) == pytest.approx(text_loss(same.model, texts), abs=1e-6)
    assert abs(text_loss(on, texts) - text_loss(training.go_on(training.start, 3), texts)) > 1e-3
    assert on.name.endswith("relapsed") and training.recipe.steps == 2
