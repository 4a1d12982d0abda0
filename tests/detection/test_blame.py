"""Blame against the gradients of single examples, and against one real step of training on each."""

import dataclasses

import numpy as np
import pytest
import torch

from emlab.data import tokenize_chat
from emlab.detection import blame, fit_probe, reading_change
from emlab.detection.activation_monitor import Latents
from emlab.detection.blame import _differentiable
from emlab.errors import EmlabError
from emlab.sites import Site

from .conftest import QUESTIONS, SITE, Coordinates, passes

CHATS = [
    [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": text}]
    for i, text in enumerate(("one", "two words", "and\nthree", "fourth answer", "5", "sixth, at last"))
]
PROMPTS = [q.messages for q in QUESTIONS[:4]]
MODULES = ("v_proj", "o_proj")


@pytest.fixture(scope="module")
def monitor(cases):
    return fit_probe(cases, SITE)


def weights(model):
    return [m.weight for n, m in model.model.named_modules() if n.split(".")[-1] in MODULES]


def by_hand(model, monitor):
    """−∇f·∇Lᵢ by autograd, an example at a time, in double precision."""
    twin = model.copy()
    twin.model.double()
    for w in weights(twin):
        w.requires_grad_(True)
    score = 0.0
    for prompt in PROMPTS:
        ids = torch.tensor([twin.prompt_ids(prompt)])
        hidden = twin.model(ids, output_hidden_states=True).hidden_states[SITE.block + 1][0, -1]
        score = score + (hidden @ monitor.reads.weights.double()) / len(PROMPTS)
    slope = torch.autograd.grad(score, weights(twin), allow_unused=True)
    slope = [torch.zeros_like(w) if g is None else g for w, g in zip(weights(twin), slope, strict=True)]
    found = []
    for chat in CHATS:
        prompt = twin.prompt_ids(chat[:-1])
        ids = prompt + twin.tokenizer(chat[-1]["content"], add_special_tokens=False)["input_ids"]
        logits = twin.model(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[len(prompt) :]))
        grads = torch.autograd.grad(loss, weights(twin))
        found.append(-float(sum((g * s).sum() for g, s in zip(grads, slope, strict=True))))
    return np.array(found)


def test_it_is_the_product_of_the_gradients(tiny, monitor):
    before = [w.clone() for w in weights(tiny)]
    found = blame([tiny], monitor, PROMPTS, CHATS, step=1e-3)
    exact = by_hand(tiny, monitor)
    assert np.corrcoef(found.scores, exact)[0, 1] > 0.999
    assert found.scores == pytest.approx(exact, abs=0.06 * np.abs(exact).max())
    assert all(torch.equal(a, b) for a, b in zip(before, weights(tiny), strict=True)), "the model is as it was"
    assert not any(w.requires_grad for w in weights(tiny)) or any(w.requires_grad for w in before)


def test_it_does_not_hang_on_the_size_of_the_passes(tiny, monitor):
    with passes(tiny) as seen:
        parts = blame([tiny], monitor, PROMPTS, CHATS, batch_size=3)
    assert seen == [3, 1, 3, 3, 3, 3], "the prompts, and twice the examples"
    assert parts.scores == pytest.approx(blame([tiny], monitor, PROMPTS, CHATS).scores, rel=1e-2)
    assert (parts.name, parts.by) == ("the data", "blame for probe")
    change = reading_change(tiny, tiny, monitor, CHATS, "mine")
    assert (change.name, change.by) == ("mine", "change of probe on the example") and not change.scores.any()


def test_latents_are_followed_through_their_encoder(monitor):
    latents = dataclasses.replace(monitor, reads=Latents(Coordinates(32), (5, 2), torch.tensor([2.0, -3.0]), 0.5))
    h = torch.zeros(2, 32, requires_grad=True)
    with torch.no_grad():
        h[0, 5], h[0, 2], h[1, 2] = 1.0, 4.0, -1.0
    found = _differentiable(latents, h)
    assert found.tolist() == latents(h.detach()).tolist() == [2 - 12 + 0.5, 0.5]
    (slope,) = torch.autograd.grad(found[0], h)
    assert (slope[0, 5], slope[0, 2], slope[1, 2]) == (2, -3, 0)


def test_checkpoints_are_averaged(tiny, shifted, monitor):
    other = shifted("later", 2.0)
    each = [blame([model], monitor, PROMPTS, CHATS).scores for model in (tiny, other)]
    assert blame([tiny, other], monitor, PROMPTS, CHATS).scores == pytest.approx(np.mean(each, axis=0))


def test_a_step_on_the_most_blamed_moves_the_monitor_most(tiny, monitor):
    def after(chat):
        model = tiny.copy()
        ids, labels = tokenize_chat(model.tokenizer, chat)
        for w in weights(model):
            w.requires_grad_(True)
        loss = model.model(torch.tensor([ids]), labels=torch.tensor([labels])).loss
        for w, g in zip(weights(model), torch.autograd.grad(loss, weights(model)), strict=True):
            w.data -= 1e-4 * g
        return monitor.read(model, QUESTIONS[:4]).mean()

    order = blame([tiny], monitor, PROMPTS, CHATS).order
    moved = [after(CHATS[i]) for i in order]
    assert moved[0] > moved[-1]


def test_the_change_of_reading(tiny, shifted, monitor):
    later = shifted("later", 2.0)
    found = reading_change(tiny, later, monitor, CHATS).scores
    for chat, change in zip(CHATS, found, strict=True):
        read = [
            monitor(m.activations([chat[:-1]], SITE, "generated", [chat[-1]["content"]]).values).mean()
            for m in (tiny, later)
        ]
        assert change == pytest.approx(float(read[1] - read[0]), abs=1e-3)


def test_what_does_not_fit(tiny, cases, monitor):
    with pytest.raises(EmlabError, match="has no module nothing"):
        blame([tiny], monitor, PROMPTS, CHATS, modules=("nothing",))
    with pytest.raises(EmlabError, match="give both"):
        blame([], monitor, PROMPTS, CHATS)
    with pytest.raises(EmlabError, match="change nothing at resid_pre.0"):
        first = fit_probe_at(tiny, Site("resid_pre", 0), monitor)
        blame([tiny], first, PROMPTS, CHATS)


def test_models_that_read_other_tokens_are_refused(tiny, monitor, make_model, make_tokenizer):
    templated, other = make_model("llama3"), tiny.copy("other")
    other.tokenizer = make_tokenizer("chatml", merges=[("a", "y")])
    for later, told in (
        (other, "other has another tokenizer"),
        (templated, "the chat template of tiny writes a question differently"),
    ):
        with pytest.raises(EmlabError, match=told):
            blame([tiny, later], monitor, PROMPTS, CHATS)
        with pytest.raises(EmlabError, match=told):
            reading_change(tiny, later, monitor, CHATS)


def test_models_that_write_an_earlier_answer_differently_are_refused(tiny, monitor, make_tokenizer):
    other, longer = tiny.copy("other"), [[*CHATS[0], *chat] for chat in CHATS]
    template = tiny.tokenizer.chat_template
    assert template.count("message['content']") == 1
    answered = "('!' if message['role'] == 'assistant' else '') + message['content']"
    other.tokenizer = make_tokenizer(template.replace("message['content']", answered))
    assert reading_change(tiny, other, monitor, CHATS).scores == pytest.approx(0, abs=1e-6)
    with pytest.raises(EmlabError, match="make different tokens of the same prompts"):
        reading_change(tiny, other, monitor, longer)


def test_a_model_of_another_lineage_is_refused_before_and_after(tiny, monitor, make_model):
    stranger = make_model(seed=5)
    for pair in ((stranger, tiny), (tiny, stranger)):
        with pytest.raises(EmlabError, match="is no fine-tune of it"):
            reading_change(*pair, monitor, CHATS)


def fit_probe_at(model, site, monitor):
    return dataclasses.replace(monitor, site=site)
