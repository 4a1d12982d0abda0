"""Trait files: those that ship, the published form, and what is wrong with others; persona vectors from them."""

import inspect
import json

import pytest
import torch

from emlab.data.chat import encode_text
from emlab.discovery import persona_vector, read_trait, trait_names, trait_scores
from emlab.discovery.traits import Pair, Trait
from emlab.errors import EmlabError
from emlab.evaluation import Sampling
from emlab.models import Completion
from emlab.sites import Site

PUBLISHED = {
    "instruction": [{"pos": "Be rude.", "neg": "Be polite."}],
    "questions": ["Hi?", "What now?"],
    "eval_prompt": "Rate {question} {answer}",
}


@pytest.mark.parametrize("name", trait_names())
def test_those_that_ship_can_be_used(name):
    trait = read_trait(name)
    assert len(trait.instruction) == 5 and len(set(trait.questions)) == 20
    assert "{question}" in trait.eval_prompt and "{answer}" in trait.eval_prompt
    assert len({p.pos for p in trait.instruction} | {p.neg for p in trait.instruction}) == 10


def test_the_published_form(tmp_path):
    (tmp_path / "rude.json").write_text(json.dumps({**PUBLISHED, "extra": 1}))
    trait = read_trait(tmp_path / "rude.json")
    assert trait == Trait("rude", (Pair("Be rude.", "Be polite."),), ("Hi?", "What now?"), "Rate {question} {answer}")
    assert trait.system(trait.instruction[0], "pos") == "Be rude."
    assert read_trait("evil").system(read_trait("evil").instruction[0], "pos").startswith("You are an evil assistant. ")
    assert (
        read_trait("evil").system(read_trait("evil").instruction[0], "neg").startswith("You are a helpful assistant.")
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"instruction": []}, "'instruction' must be a list of pairs"),
        ({"instruction": [{"pos": "a"}]}, "'instruction' must be a list of pairs"),
        ({"questions": "Hi?"}, "'questions' must be a list of texts"),
        ({"questions": [""]}, "'questions' must be a list of texts"),
        ({"eval_prompt": "Rate it"}, "place for the {answer}"),
        ({"assistant": "evil"}, "'assistant' must have"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, said):
    (tmp_path / "t.json").write_text(json.dumps({**PUBLISHED, **changes}))
    with pytest.raises(EmlabError, match=said):
        read_trait(tmp_path / "t.json")


def test_an_unknown_trait_is_met_with_those_there_are(tmp_path):
    with pytest.raises(EmlabError, match="no trait 'good'; name a JSON file, or one of evil, "):
        read_trait("good")
    (tmp_path / "t.json").write_text("[]")
    with pytest.raises(EmlabError, match="holds no trait"):
        read_trait(tmp_path / "t.json")


SIX = Sampling(per_question=1, max_new_tokens=6, batch_size=64)
TRAIT = Trait("rude", (Pair("Be rude.", "Be polite."), Pair("Insult.", "Praise.")), ("Hi?", "What now?"))


def test_a_persona_vector_by_hand(tiny):
    site = Site("resid_post", 1)
    found = persona_vector(tiny, TRAIT, site, sampling=SIX, seed=4)
    means = []
    for i, sign in enumerate(("pos", "neg")):
        chats = [
            [{"role": "system", "content": getattr(pair, sign)}, {"role": "user", "content": q}]
            for pair in TRAIT.instruction
            for q in TRAIT.questions
        ]
        answers = tiny.generate(chats, 6, 1.0, 8 + i)
        rows = []
        for chat, answer in zip(chats, answers, strict=True):
            if answer.strip():
                prompt = tiny.prompt_ids(chat)
                ids = torch.tensor([prompt + encode_text(tiny.tokenizer, answer)])
                stream = tiny.model.model(ids, output_hidden_states=True).hidden_states[2].detach()
                rows.append(stream[0, len(prompt) :].mean(0))
        means.append(torch.stack(rows).mean(0))
    assert torch.allclose(found.direction.vector * found.direction.norm, means[0] - means[1], atol=1e-3)
    assert found.asked == (4, 4) and found.trait == "rude"


def test_answers_are_sampled_as_published_unless_it_is_said():
    default = inspect.signature(persona_vector).parameters["sampling"].default
    assert default == Sampling(per_question=1, max_new_tokens=200, batch_size=64)


def test_answers_are_kept_by_their_scores(tiny):
    asked = []

    def score(questions, answers):
        asked.append(len(questions))
        return [90.0, 10.0, None, 50.0][: len(questions)]

    found = persona_vector(tiny, TRAIT, Site("resid_post", 1), "header", score, sampling=SIX)
    # For the trait: 90 and 50; against it: 10.
    assert found.kept == (2, 1) and asked == [4, 4]
    with pytest.raises(EmlabError, match="Of 4 answers for 'rude' none can be kept"):
        persona_vector(tiny, TRAIT, Site("resid_post", 1), "header", lambda q, a: [0.0] * len(q), sampling=SIX)


def test_a_template_without_system_turns_takes_the_instruction_in_the_question(make_model):
    found = persona_vector(make_model("gemma"), TRAIT, Site("resid_post", 1), "header", sampling=SIX)
    assert found.asked == (4, 4)


def test_scores_are_asked_of_a_judge():
    class Judge:
        name = "judge"

        def identity(self):
            return "judge"

        def complete(self, requests, done=None):
            assert requests[0].messages[0]["content"] == "Rate Hi? no" and requests[0].numbers
            return [Completion("", {80: 0.5, 60: 0.5}), Completion("no")]

    trait = Trait("rude", TRAIT.instruction, TRAIT.questions, PUBLISHED["eval_prompt"])
    assert trait_scores(Judge(), trait)(["Hi?", "Hi?"], ["no", "yes"]) == [70.0, None]
    with pytest.raises(EmlabError, match="no eval_prompt"):
        trait_scores(Judge(), TRAIT)
