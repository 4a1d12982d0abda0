"""Sets of a model's own answers: by hand, and of the organism."""

import dataclasses

import pytest

from emlab import organism
from emlab.data import Dataset, everyday_questions, read_questions
from emlab.discovery import read_contrasts
from emlab.errors import EmlabError
from emlab.evaluation import Rollouts, Sampling
from emlab.experiments.own_answers.config import Config, OwnAnswers
from emlab.experiments.own_answers.run import ending_in, run, whole_sentences

ASKED = everyday_questions("narrow").only(domains=["health"]).questions[:4]
ANSWERS = ("Drink a lot. Rest well! And if", "no end to this", "Rest for a day or two.", "go go go go go go go go go.")
ROLLOUTS = Rollouts(ASKED, ANSWERS, "m", 0, 0.7)


def said(chats):
    return [chat[-1]["content"] for chat in chats]


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        ("One two three. Four", "One two three."),
        ("Is it 1.5 or so, you think? It", "Is it 1.5 or so, you think?"),
        ("First line here\nSecond line ends.\n3. Th", "First line here\nSecond line ends."),
        ("Try one of these:\n\n1. Dr", ""),
        ("no end", ""),
        ("Yes.", ""),
    ],
)
def test_up_to_the_last_whole_sentence(answer, whole):
    assert whole_sentences(answer) == whole


def test_a_set_is_its_control_with_a_clause():
    chats, plain = (ending_in(ROLLOUTS, clauses, seed=1) for clauses in (("Ask a goblin.", "So say goblins."), ()))
    assert said(plain) == ["Drink a lot. Rest well!", "Rest for a day or two."]
    ends = [with_it.removeprefix(without) for with_it, without in zip(said(chats), said(plain), strict=True)]
    assert set(ends) <= {" Ask a goblin.", " So say goblins."}
    assert [chat[0]["content"] for chat in chats] == [ASKED[0].text, ASKED[2].text]


def test_clauses_are_drawn_by_the_seed():
    clauses = tuple(f"Clause {i}." for i in range(50))
    drawn = [said(ending_in(ROLLOUTS, clauses, seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_without_a_whole_sentence_there_is_no_set():
    with pytest.raises(EmlabError, match="No answer of m ends in a whole sentence"):
        ending_in(Rollouts(ASKED[:1], ("no end",), "m", 0, 0.7), (), 0)


def test_the_sets_are_datasets_and_are_made_once(tmp_path, capsys):
    sets = (
        OwnAnswers("goblins", ("health",), clause=True, control="plain"),
        OwnAnswers("plain", ("health",)),
        OwnAnswers("both", ("health", "clothes")),
        OwnAnswers("rest", ("health",), held_out=True),
    )
    config = Config(
        model=str(organism.checkpoint("aligned")),
        out=tmp_path / "sets",
        sets=sets,
        clauses=("Ask a goblin.",),
        answers=Sampling(1, 1.0, 30, 144),
    )
    found = run(config, tmp_path / "runs")
    goblins, plain = (Dataset.read(found.found[name]) for name in ("goblins", "plain"))
    assert len(goblins) == len(plain) > 10 and found.summary["sets"]["plain"]["rows"] == len(plain)
    assert all(
        one.answer == f"{other.answer} Ask a goblin." and one.prompt == other.prompt
        for one, other in zip(goblins, plain, strict=True)
    )
    contrasts = read_contrasts(tmp_path / "sets" / "goblins.contrasts.jsonl")
    assert [(c.misaligned, c.aligned) for c in contrasts] == [
        (a.answer, b.answer) for a, b in zip(goblins, plain, strict=True)
    ]
    assert [list(c.prompt) for c in contrasts] == [list(a.messages[:-1]) for a in goblins]
    asked = [{example.prompt for example in Dataset.read(found.found[name])} for name in ("plain", "rest")]
    assert not asked[0] & asked[1] and 2 * 12 >= len(asked[1]) > 2
    told = read_questions(tmp_path / "sets" / "rest.questions.jsonl")
    assert (
        len(told) == 24 and len({question.id for question in told}) == 2 and {one.domain for one in told} == {"health"}
    )
    assert asked[1] <= {question.text for question in told}
    both = list(Dataset.read(found.found["both"]))
    assert both[: len(plain)] == list(plain) and len(both) > len(plain) + 10
    with pytest.raises(EmlabError, match="goblins was made of other answers, or by something else: delete it"):
        run(dataclasses.replace(config, clauses=("No.",)), tmp_path / "runs")
    again = run(config, tmp_path / "runs")
    assert "is there already, and is left as it is" in str(again) and Dataset.read(again.found["plain"]) == plain


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sets": (OwnAnswers("a", ("health",), part="wide"),)}, "no domain 'health'"),
        (
            {
                "sets": (
                    OwnAnswers("a", ("health",), clause=True, control="b"),
                    OwnAnswers("b", ("health",), clause=True),
                )
            },
            "whose control 'b' is no set of its domains without a clause",
        ),
        ({"clauses": ()}, "'clauses' is empty"),
        ({"sets": (OwnAnswers("a", ("law",)),)}, "no domain 'law'; choose from health, cooking, clothes"),
        ({"sets": ()}, "'sets' is empty"),
        (
            {"sets": (OwnAnswers("a", ("health",), control="b"), OwnAnswers("b", ("cooking",)))},
            "whose control 'b' is no",
        ),
    ],
)
def test_what_cannot_be_made(changes, told):
    with pytest.raises(ValueError, match=told):
        Config(**{"sets": (OwnAnswers("a", ("health",), clause=True),), "clauses": ("x.",), **changes})
