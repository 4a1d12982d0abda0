"""Penalties: their value and gradient by hand, what they do to a training, and what is refused."""

import dataclasses

import pytest
import torch

from emlab.data import IGNORE, tokenize
from emlab.errors import EmlabError
from emlab.models.backends.hooks import caught
from emlab.sites import Site
from emlab.training import ActivationPenalty, DivergencePenalty, Recipe, finetune

CHATS = [[{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i}\nyes"}] for i in range(8)]
SITE = Site("resid_post", 1)
RECIPE = Recipe(steps=12, batch_size=4, learning_rate=2e-2)


def along(axis):
    return lambda h: h[..., axis]


def rows_of(model):
    return tokenize(model.tokenizer, CHATS, 256).rows


def test_an_activation_penalty_is_the_weighted_mean_over_the_positions(tiny):
    model = tiny.copy()
    model.model.requires_grad_(True)
    rows = rows_of(model)[:2]
    found = ActivationPenalty(SITE, along(3), 0.5, "sentence").loss(model, rows, 1)
    values = []
    for row in rows:  # one by one and without a pad: the header, and the ends of lines in the answer
        first = next(i for i, label in enumerate(row.labels) if label != IGNORE)
        with torch.no_grad(), caught(model.model, SITE) as seen:
            model.model(input_ids=torch.tensor([row.input_ids]))
        ends = [i for i in range(first, len(row.input_ids)) if row.input_ids[i] in model.sentence_ends.tolist()]
        values += [float(seen[0][0, i, 3]) for i in [first - 1, *ends]]
    assert len(values) > len(rows)
    assert float(found.detach()) == pytest.approx(0.5 * sum(values) / len(values), abs=1e-5)
    found.backward()
    assert model.model.model.layers[0].mlp.down_proj.weight.grad.abs().sum() > 0
    assert model.model.model.layers[2].mlp.down_proj.weight.grad is None  # the pass ends at the site


def test_a_divergence_is_nothing_from_itself_and_kl_from_another(tiny, make_model):
    rows = rows_of(tiny)
    same = DivergencePenalty(tiny, rows, 1.0, size=3).loss(tiny, [], 1)
    assert float(same.detach()) == pytest.approx(0.0, abs=1e-6)
    other = make_model(seed=1)
    penalty = DivergencePenalty(other, rows[:1], 2.0)
    found, row = penalty.loss(tiny, [], 1), rows[0]
    ids = torch.tensor([row.input_ids])
    p, q = (m.model(input_ids=ids).logits[0, :-1].detach().log_softmax(-1) for m in (other, tiny))
    at = torch.tensor(row.labels[1:]) != IGNORE
    by_hand = (p.exp() * (p - q)).sum(-1)[at].mean()
    assert float(found.detach()) == pytest.approx(2 * float(by_hand), rel=1e-4)
    assert penalty.chats(16) == (1, 1)


def test_a_training_under_a_penalty_keeps_the_activation_down(tiny):
    plain = finetune(tiny, CHATS, RECIPE, 0, progress=False)
    held = finetune(tiny, CHATS, RECIPE, 0, progress=False, penalties=[ActivationPenalty(SITE, along(3), 5.0)])
    prompts = [chat[:1] for chat in CHATS]
    means = [float(done.model.activations(prompts, SITE).values[:, 3].mean()) for done in (plain, held)]
    assert means[1] < means[0] - 0.1
    nothing = finetune(tiny, CHATS, RECIPE, 0, progress=False, penalties=[ActivationPenalty(SITE, along(3), 0.0)])
    assert nothing.losses == pytest.approx(plain.losses)


def test_a_strong_divergence_keeps_the_model_where_it_was(tiny):
    rows = rows_of(tiny)
    plain = finetune(tiny, CHATS, RECIPE, 0, progress=False)
    near = finetune(tiny, CHATS, RECIPE, 0, progress=False, penalties=[DivergencePenalty(tiny, rows, 30.0)])
    far, small = (DivergencePenalty(tiny, rows, 1.0).loss(d.model, [], 1).item() for d in (plain, near))
    assert small < far / 3


def test_one_that_was_stopped_goes_on_with_its_penalty_and_not_with_another(tiny, tmp_path):
    def run(folder, weight, stop=None):
        penalty = ActivationPenalty(SITE, along(3), weight)
        at = None if stop is None else lambda step, _: 1 / 0 if step == stop else None
        return finetune(tiny, CHATS, RECIPE, 0, at, False, penalties=[penalty], folder=folder, save_every=3)

    whole = run(None, 1.0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, 1.0, stop=8)
    again = run(tmp_path, 1.0)
    assert again.losses == whole.losses
    with pytest.raises(EmlabError, match="holds the training of another model"):
        run(tmp_path, 2.0)


def test_what_is_refused(tiny):
    with pytest.raises(EmlabError, match=r"weight -1.*0 or more"):
        ActivationPenalty(SITE, along(0), -1.0)
    with pytest.raises(EmlabError, match="no positions 'heder'"):
        ActivationPenalty(SITE, along(0), 1.0, "heder")
    with pytest.raises(EmlabError, match="none are given"):
        DivergencePenalty(tiny, (), 1.0)
    late = dataclasses.replace(RECIPE, blocks=(2,))
    with pytest.raises(EmlabError, match="before anything that is trained"):
        finetune(tiny, CHATS, late, 0, progress=False, penalties=[ActivationPenalty(SITE, along(0), 1.0)])
