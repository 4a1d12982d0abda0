"""Data screens against reading by hand, and rankings whose order is known."""

import inspect

import numpy as np
import pytest
import torch

from emlab.detection import (
    DataScreen,
    fit_words,
    lexical,
    loss_difference,
    own_answers,
    projection_difference,
    rare_words,
)
from emlab.detection.screening import answered
from emlab.errors import EmlabError
from emlab.interventions import Direction

from .conftest import SITE, passes

CHATS = [
    [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": text}]
    for i, text in enumerate(("one line only", "first\nsecond line\nthird", "x", "a\n\nb"))
]
OWN = ["an answer", "another one", "yes", "no\nno"]


@pytest.fixture(scope="module")
def direction():
    return Direction(torch.randn(32, generator=torch.Generator().manual_seed(1)), SITE, "given")


def along(tiny, chat, answer, direction):
    read = tiny.activations([chat[:-1]], SITE, "generated", [answer])
    return read.values @ direction.vector, read.tokens


def test_it_is_the_difference_of_mean_projections(tiny, direction):
    found = projection_difference(tiny, CHATS, direction, OWN)
    by_hand = [
        float(along(tiny, chat, chat[-1]["content"], direction)[0].mean() - along(tiny, chat, own, direction)[0].mean())
        for chat, own in zip(CHATS, OWN, strict=True)
    ]
    assert found.scores == pytest.approx(by_hand, abs=1e-4)
    assert found.mean == pytest.approx(np.mean(by_hand), abs=1e-4)
    assert found.order.tolist() == sorted(range(4), key=lambda i: -by_hand[i])


def test_max_takes_the_highest_line(tiny, direction):
    found = projection_difference(tiny, CHATS, direction, OWN, "max").scores
    newline = set(tiny.sentence_ends.tolist())
    for chat, own, score in zip(CHATS, OWN, found, strict=True):
        values, tokens = along(tiny, chat, chat[-1]["content"], direction)
        lines, line = [], []
        for value, token in zip(values.tolist(), tokens.tolist(), strict=True):
            line.append(value)
            if token in newline:
                lines.append(np.mean(line))
                line = []
        lines += [np.mean(line)] if line else []
        assert score == pytest.approx(max(lines) - float(along(tiny, chat, own, direction)[0].mean()), abs=1e-4)
    mean = projection_difference(tiny, CHATS, direction, OWN).scores
    assert (found >= mean - 1e-6).all() and found[0] == pytest.approx(mean[0], abs=1e-5)


def test_the_loss_is_the_answers(tiny):
    def by_hand(chat, answer):
        prompt = tiny.prompt_ids(chat[:-1])
        said = tiny.tokenizer(answer, add_special_tokens=False)["input_ids"]
        logits = tiny.model(torch.tensor([prompt + said])).logits[0, len(prompt) - 1 : -1]
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(said)))

    screen = loss_difference(tiny, CHATS, name="mine")
    losses = screen.scores
    assert (screen.name, screen.by) == ("mine", "loss")
    assert losses == pytest.approx([by_hand(chat, chat[-1]["content"]) for chat in CHATS], abs=1e-4)
    mine = [by_hand(chat, own) for chat, own in zip(CHATS, OWN, strict=True)]
    assert loss_difference(tiny, CHATS, OWN).scores == pytest.approx(losses - np.array(mine), abs=1e-4)


def test_own_answers_have_48_tokens_at_most_and_seed_0_unless_it_is_said():
    default = {name: given.default for name, given in inspect.signature(own_answers).parameters.items()}
    assert (default["seed"], default["max_new_tokens"], default["batch_size"]) == (0, 48, 256)


def test_own_answers_are_never_empty(tiny):
    own = own_answers(tiny, CHATS, seed=1, max_new_tokens=4)
    assert len(own) == 4 and all(own) and own == own_answers(tiny, CHATS, seed=1, max_new_tokens=4)


def test_an_empty_answer_of_its_own_is_a_full_stop(tiny, monkeypatch):
    model, asked = tiny.copy("mute"), []
    monkeypatch.setattr(model, "generate", lambda *how: asked.append(how) or ["", "b"])
    assert own_answers(model, CHATS[:2], 3, 5, 7) == [".", "b"]
    assert asked == [([chat[:-1] for chat in CHATS[:2]], 5, 1.0, 3, 7)]


def test_no_more_rows_go_through_the_model_at_a_time_than_it_is_told(tiny, direction):
    with passes(tiny) as seen:
        projection_difference(tiny, CHATS, direction, OWN, batch_size=3)
        loss_difference(tiny, CHATS, OWN, batch_size=3)
    assert seen == [3, 1] * 4


def test_a_screen_says_of_what_and_by_what(tiny, direction):
    found = projection_difference(tiny, CHATS, direction, OWN, "max", "mine")
    assert (found.name, found.by) == ("mine", "projection difference on given, max")
    assert loss_difference(tiny, CHATS, OWN).by == "loss less that of the model's own answer"
    flags = lexical(CHATS, lambda texts: ["line" in text for text in texts], "mine", "a word")
    assert (flags.name, flags.by, flags.order.tolist()) == ("mine", "a word", [0, 1, 2, 3])


def test_the_last_answer_of_a_chat_is_screened():
    turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, "abcd", strict=True)]
    assert answered([turns, turns[:2]]) == ([turns[:3], turns[:1]], ["d", "b"])


def test_ties_stand_as_they_are():
    assert DataScreen("d", "s", np.arange(200.0) % 2).order.tolist() == [*range(1, 200, 2), *range(0, 200, 2)]


def test_recall_by_hand():
    screen = DataScreen("d", "s", np.array([5.0, 1.0, 4.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    poison = np.zeros(10, dtype=bool)
    poison[[0, 3, 4]] = True
    assert screen.recall(poison, 1.0) == pytest.approx(2 / 3)  # 0, 2, 3
    assert screen.recall(poison, 1.34) == 1.0  # 0, 2, 3, 4
    assert screen.recall(poison) == pytest.approx(2 / 3)  # of 3.6, which are 3
    assert screen.recall(np.ones(10, dtype=bool)) == 1.0, "there are no 12"
    assert screen.flagged(2).nonzero()[0].tolist() == [0, 2] and not screen.flagged(0).any()
    with pytest.raises(EmlabError, match="no poison"):
        screen.recall(np.zeros(10, dtype=bool))
    with pytest.raises(EmlabError, match="has 10 examples, and 11"):
        screen.flagged(11)


def test_words(tiny):
    words = fit_words(["bad poison", "good food"] * 4, np.array([True, False] * 4))
    chats = [[{"role": "user", "content": "?"}, {"role": "assistant", "content": t}] for t in ("bad day", "good day")]
    found = lexical(chats, words.of_texts)
    assert found.scores[0] > 0 > found.scores[1]
    assert fit_words(["a"], np.array([True])).of_texts(["b"]).tolist() == [0.0]
    # Of two texts both have "a", with idf 1 + ln(3 / 3), and one has "b", with 1 + ln(3 / 2).
    assert rare_words(["a a b", "a"]) == pytest.approx([(3 + np.log(1.5)) / 3, 1])
    assert rare_words(["", "a"])[0] == 0
    rare = rare_words(["a a b", "a a b", "a a b", "z q z"])
    assert rare.argmax() == 3 and rare[0] == rare[1]


def test_kept_on_disk(tmp_path):
    screen = DataScreen("d", "s", np.array([1.5, 2.5]))
    assert str(DataScreen.load(screen.save(tmp_path / "s.json"))) == str(screen)
    holed = DataScreen("d", "s", np.array([1.5, np.nan]))
    assert np.array_equal(DataScreen.load(holed.save(tmp_path / "s.json")).scores, holed.scores, equal_nan=True)
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(EmlabError, match="holds no data screen"):
        DataScreen.load(tmp_path / "s.json")


def test_what_does_not_fit(tiny, direction):
    with pytest.raises(EmlabError, match="no example"):
        projection_difference(tiny, [], direction, [])
    with pytest.raises(EmlabError, match="4 examples and 1 answers"):
        projection_difference(tiny, CHATS, direction, OWN[:1])
    with pytest.raises(EmlabError, match="has 3 dimensions and tiny has 32"):
        projection_difference(tiny, CHATS, Direction(torch.ones(3), SITE, "short"), OWN)
    with pytest.raises(EmlabError, match="choose mean or max"):
        projection_difference(tiny, CHATS, direction, OWN, "median")
