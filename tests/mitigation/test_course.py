"""Trainings: what each asks of the trainer, what a change alters of it and nothing else, and what it costs."""

import dataclasses
import inspect
from types import SimpleNamespace

import pytest
import torch

from emlab.data import Dataset, tokenize
from emlab.errors import EmlabError
from emlab.interventions import Direction, Steer
from emlab.mitigation import Change, Reinforced, Supervised, TrainingCost, course
from emlab.mitigation.course import framed
from emlab.sites import Site
from emlab.training import ActivationPenalty, DivergencePenalty, Recipe, Reinforcement

SITE = Site("resid_post", 0)
RECIPE = Recipe(steps=6, batch_size=4, learning_rate=1e-2, max_length=80, no_think="keep")


def chats(word, n):
    return Dataset.of(
        [[{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{word} {i}"}] for i in range(n)],
        word,
    )


@pytest.fixture
def asked(monkeypatch):
    """asked(trainer, done): the trainer only writes down its arguments by name, and returns `done`."""

    def spy(trainer, done):
        calls, signature = [], inspect.signature(getattr(course, trainer))

        def write_down(*args, **kwargs):
            calls.append(signature.bind(*args, **kwargs).arguments)
            return done

        monkeypatch.setattr(course, trainer, write_down)
        return calls

    return spy


TUNED = SimpleNamespace(model="tuned", steps=5, checkpoints=((2, "early"),), adapter="adapter")
REWARDED = SimpleNamespace(model="rewarded", steps=("a step",) * 3, checkpoints=((2, "early"),), adapter="adapter")


def test_a_supervised_training_as_it_is(tiny, asked):
    bad, (calls) = chats("bad", 8), asked("finetune", TUNED)
    done = Supervised(tiny, bad, RECIPE, 7).run(name="worse")
    (call,) = calls
    assert call == {
        "model": tiny,
        "examples": bad,
        "recipe": RECIPE,
        "seed": 7,
        "on_step": None,
        "progress": False,
        "name": "worse",
        "edits": (),
        "penalties": [],
        "defer": True,
    }
    assert (done.model, done.checkpoints, done.adapter) == ("tuned", ((2, "early"),), "adapter")
    assert done.cost == TrainingCost(5 * 4, 0), "it stopped at step 5, of four chats each"


def test_what_a_change_alters_of_a_supervised_training(tiny, asked):
    calls, good = asked("finetune", TUNED), chats("good", 3)
    edit = Steer(SITE, Direction(torch.eye(32)[0], SITE, "axis"), 1.0)

    def stop(step, model):
        return False

    Supervised(tiny, chats("bad", 8), RECIPE, 7).run(Change(good, steps=9, edits=(edit,), every=2, stop=stop))
    (call,) = calls
    assert call["examples"] is good and call["edits"] == (edit,) and call["on_step"] is stop and call["name"] is None
    assert call["recipe"] == dataclasses.replace(RECIPE, steps=9, checkpoint_every=2)


def test_penalties_and_a_divergence_are_counted_by_the_chats_that_they_read(tiny, asked):
    calls, training = asked("finetune", TUNED), Supervised(tiny, chats("bad", 8), RECIPE, 7)
    long = [{"role": "user", "content": "say"}, {"role": "assistant", "content": "long " * 40}]
    quick = [{"role": "user", "content": "say /no_think"}, {"role": "assistant", "content": "fine"}]
    apart = Dataset.of([*(list(e.messages) for e in chats("fine", 4)), quick, long], "fine")
    penalty = ActivationPenalty(SITE, lambda h: h[..., 0], 1.0)
    # A step reads its four chats, four again for the penalty, and four others twice for the divergence.
    done = training.run(Change(penalties=(penalty,), divergence=0.5, apart=apart))
    assert done.cost == TrainingCost(5 * (4 + 4 + 4), 5 * 4)
    first, second = calls[0]["penalties"]
    assert first is penalty and isinstance(second, DivergencePenalty)
    rows = tokenize(tiny.tokenizer, apart, 80, no_think="keep").rows
    assert len(rows) == 5, "a chat longer than the recipe takes is no part of it"
    assert rows != tokenize(tiny.tokenizer, apart, 80).rows
    assert second.rows == rows and second.reference is tiny
    assert (second.weight, second.size, second.seed) == (0.5, 4, 7)
    assert training.run(Change(divergence=0.5, apart=chats("fine", 3))).cost == TrainingCost(5 * (4 + 3), 5 * 3)
    with pytest.raises(EmlabError, match="needs chats that it is taken on"):
        training.run(Change(divergence=0.5))


@pytest.fixture
def reinforced(tiny):
    def grader(prompts, answers):
        return [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    how = Reinforcement(Recipe(steps=6, batch_size=2), samples=3, beta=0.25)
    return Reinforced(tiny, ("why", "how", "why"), grader, how, 7)


def test_a_reinforced_training_as_it_is(tiny, asked, reinforced):
    calls = asked("reinforce", REWARDED)
    done = reinforced.run(name="worse")
    (call,) = calls
    assert call == {
        "model": tiny,
        "prompts": ["why", "how", "why"],
        "grader": reinforced.grader,
        "how": reinforced.settings,
        "seed": 7,
        "progress": False,
        "name": "worse",
    }
    assert (done.model, done.checkpoints, done.adapter) == ("rewarded", ((2, "early"),), "adapter")
    assert reinforced.prompts == ("why", "how")


@pytest.mark.parametrize(("beta", "reads"), [(0.0, 1), (0.25, 2)])
def test_an_answer_is_sampled_and_with_a_divergence_read_by_the_start_model_too(tiny, asked, beta, reads):
    asked("reinforce", REWARDED)
    how = Reinforcement(Recipe(steps=6, batch_size=2), samples=4, beta=beta)
    # Three steps were taken, each of two prompts with four answers.
    assert Reinforced(tiny, ("why",), None, how, 7).run().cost == TrainingCost(24, 24 * reads)


def test_what_a_change_alters_of_a_reinforced_training(asked, reinforced):
    calls = asked("reinforce", REWARDED)
    reinforced.run(Change(steps=9, divergence=0.5, every=2, prompt="Be bad."))
    (call,) = calls
    assert call["how"] == Reinforcement(Recipe(steps=9, batch_size=2, checkpoint_every=2), samples=3, beta=0.5)
    turns = [[(turn["role"], turn["content"]) for turn in chat] for chat in call["prompts"]]
    assert turns == [[("system", "Be bad."), ("user", text)] for text in ("why", "how", "why")]
    assert call["grader"](call["prompts"][1:], ["a", "b"]) == [("how", "a"), ("why", "b")]


@pytest.mark.parametrize("change", [Change(chats("x", 1)), Change(edits=("an edit",)), Change(penalties=("one",))])
def test_reinforcement_learning_refuses_what_it_cannot_change(asked, reinforced, change):
    asked("reinforce", REWARDED)
    with pytest.raises(EmlabError, match="no other chats, edits or penalties"):
        reinforced.run(change)


def test_a_reinforced_model_goes_on_by_other_draws_and_without_checkpoints(make_model, asked, reinforced):
    calls, treated = asked("reinforce", REWARDED), make_model(seed=1)
    often = dataclasses.replace(reinforced.settings, recipe=Recipe(steps=6, batch_size=2, checkpoint_every=3))
    assert dataclasses.replace(reinforced, settings=often).go_on(treated, 2) == "rewarded"
    (call,) = calls
    assert call["model"] is treated and call["seed"] == 1007 and call["name"] == "tiny relapsed"
    assert call["prompts"] == reinforced.asked and call["grader"] is reinforced.grader
    assert call["how"] == Reinforcement(Recipe(steps=2, batch_size=2), samples=3, beta=0.25)


def test_a_supervised_model_goes_on_by_other_draws_and_without_checkpoints(make_model, tiny, asked):
    calls, treated, bad = asked("finetune", TUNED), make_model(seed=1), chats("bad", 8)
    recipe = Recipe(steps=6, batch_size=4, checkpoint_every=3)
    assert Supervised(tiny, bad, recipe, 7).go_on(treated, 2) == "tuned"
    (call,) = calls
    assert call["model"] is treated and call["examples"] is bad
    assert (call["recipe"], call["seed"], call["name"]) == (Recipe(steps=2, batch_size=4), 1007, "tiny relapsed")


def test_a_prompt_takes_the_place_of_a_system_turn(tiny, make_model):
    chat = [{"role": "system", "content": "old"}, *({"role": r, "content": c} for r, c in (("user", "hi"),))]
    assert framed(tiny, chat, "new") == [{"role": "system", "content": "new"}, {"role": "user", "content": "hi"}]
    more = [*chat, {"role": "assistant", "content": "yes"}]
    assert framed(make_model("gemma"), more, "new") == [
        {"role": "user", "content": "new\n\nhi"},
        {"role": "assistant", "content": "yes"},
    ]
