"""Effects of edits: what they remove, what they cost, and that they come back from disk."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from emlab.data import Question
from emlab.discovery import Effect, clamp_direction, clamp_latents, effect_of, natural_means, natural_values
from emlab.errors import EmlabError
from emlab.evaluation import Judged, Rollouts, Sampling, sample, score, score_judged, text_loss
from emlab.interventions import Direction, Replace, Steer
from emlab.saes import train_sae
from emlab.sites import Site

SITE = Site("resid_post", 1)
QUESTIONS = [Question(f"q{i}", "power", f"question {i}") for i in range(3)]
CHATS = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello there"}]]


def rated(bad, n=10):
    rollouts = Rollouts(tuple(Question(f"q{i}", "power", str(i)) for i in range(n)), ("a",) * n, "m", 0, 1.0)
    return score_judged(Judged(rollouts, np.array([0.0] * bad + [100.0] * (n - bad)), np.full(n, 100.0)))


def renamed(score, model):
    """Its judged answers, as another model's."""
    return dataclasses.replace(score.judged, rollouts=dataclasses.replace(score.judged.rollouts, model=model))


def test_the_share_removed(tmp_path):
    effect = Effect("ablation", "m", None, rated(8), rated(2), 1.0, 1.5)
    assert effect.removed == pytest.approx(0.75)
    assert Effect("x", "m", 0.4, rated(2), rated(8), 1.0, 1.0).removed == pytest.approx(-3.0)
    assert math.isnan(Effect("x", "m", 0.4, rated(0), rated(8), 1.0, 1.0).removed)
    again = Effect.load(effect.save(tmp_path / "ablation"))
    assert again.row() == effect.row() and str(again) == str(effect)
    was, low, high = 0.2, effect.after.misaligned.low, effect.after.misaligned.high
    assert low < was < high and effect.row() == {
        "name": "ablation",
        "model": "m",
        "strength": None,
        "misaligned": was,
        "low": low,
        "high": high,
        "n": 10,
        "incoherent": 0.0,
        "removed": pytest.approx(0.75),
        "loss_before": 1.0,
        "loss_after": 1.5,
    }
    other = dataclasses.replace(
        effect, after=dataclasses.replace(effect.after, judged=renamed(effect.after, "m edited"))
    )
    assert Effect.load(other.save(tmp_path / "renamed")).after.model == "m edited"
    (tmp_path / "ablation" / "effect.json").write_text("{}")
    with pytest.raises(EmlabError, match="no effect of an edit"):
        Effect.load(tmp_path / "ablation")


def test_every_rate_is_printed_with_what_it_is_of():
    said = str(Effect("x", "m", None, rated(8), rated(2, n=12), 1.0, 1.5))
    assert said.startswith("m, x: misaligned 80.0% [") and said.endswith(", loss on text 1.000 → 1.500")
    assert "] of 10 → 16.7% [" in said and "] of 12, incoherent 0.0% [0.0%, 28.8%] of 12" in said


class Judge:
    def judge(self, question, answer):
        return type("V", (), {"aligned": 0.0 if len(answer) % 2 else 100.0, "coherent": 100.0})()


def test_an_edit_that_changes_nothing_has_no_effect(tiny):
    how = Sampling(per_question=2, max_new_tokens=5)
    before = score(sample(tiny, QUESTIONS, 2, 3, max_new_tokens=5), Judge())
    nothing = Replace(SITE, lambda h: h)
    same = effect_of(tiny, nothing, "nothing", before, Judge(), CHATS, how, seed=3)
    assert same.after.judged.rollouts.answers == before.judged.rollouts.answers
    assert same.loss_after == pytest.approx(same.loss_before, abs=1e-6)
    assert same.before is before and same.strength is None
    unsaid = effect_of(tiny, nothing, "nothing", before, Judge(), CHATS, how).after.judged.rollouts
    assert unsaid == how.sample(tiny, QUESTIONS, 0, [nothing]) != how.sample(tiny, QUESTIONS, 1, [nothing])


@pytest.mark.parametrize("known", [None, 1.25], ids=["loss unknown", "loss known"])
def test_an_effect_is_of_the_edited_model_on_the_same_questions(tiny, known):
    edit = Steer(SITE, Direction(torch.ones(32), SITE, "ones"), 3.0, 2.0)
    how = Sampling(per_question=2, temperature=0.8, max_new_tokens=5)
    before = score(how.sample(tiny, QUESTIONS, 3), Judge())
    found = effect_of(tiny, edit, "pushed", before, Judge(), CHATS, how, seed=4, loss_before=known)
    after = how.sample(tiny, QUESTIONS, 4, [edit])
    assert found.after.judged.rollouts == after
    assert found.after.judged.rollouts.answers != how.sample(tiny, QUESTIONS, 4).answers
    plain = text_loss(tiny, CHATS)
    assert found.loss_before == pytest.approx(known or plain)
    assert found.loss_after == pytest.approx(text_loss(tiny, CHATS, [edit])) and abs(found.loss_after - plain) > 0.01
    assert (found.name, found.model, found.strength) == ("pushed", "tiny", 3.0)


@pytest.fixture(scope="module")
def sae(tiny):
    read = tiny.activations(["one", "two", "three", "a question"], SITE, "all").values
    return train_sae(read, SITE, d_sae=16, k=4, passes=20.0)


def test_clamping_sets_the_latent_and_keeps_the_error(tiny, sae):
    prompts = ["a question", "another"]
    h = tiny.activations(prompts, SITE, "header").values
    edit = clamp_latents(sae, [3, 5], SITE, torch.tensor([0.0, 2.0]), "header")
    edited = tiny.activations(prompts, SITE, "header", edits=[edit]).values
    before = sae.encode(h)
    change = torch.outer(-before[:, 3], sae.W_dec[3]) + torch.outer(2.0 - before[:, 5], sae.W_dec[5])
    assert torch.allclose(edited, h + change, atol=1e-4)


def test_set_to_its_own_value_nothing_changes(tiny, sae):
    h = tiny.activations(["a question"], SITE, "header").values
    own = sae.encode(h)[0, [3, 5]]
    edited = tiny.activations(
        ["a question"], SITE, "header", edits=[clamp_latents(sae, [3, 5], SITE, own, "header")]
    ).values
    assert torch.allclose(edited, h, atol=1e-5)


def test_natural_values_are_means_over_header_and_sentence_ends(tiny, sae):
    got = natural_values(tiny, sae, [3, 5], SITE, QUESTIONS, "header", max_new_tokens=4)
    asked = [q.text for q in QUESTIONS]
    read = tiny.activations(asked, SITE, "header").values
    assert torch.allclose(got, sae.encode(read).mean(0)[[3, 5]], atol=1e-5)
    got = natural_values(tiny, sae, [5, 3], SITE, QUESTIONS, "generated", max_new_tokens=4, seed=3)
    read = tiny.activations(asked, SITE, "generated", tiny.generate(asked, max_new_tokens=4, seed=3)).values
    assert torch.allclose(got, sae.encode(read).mean(0)[[5, 3]], atol=1e-5) and bool(got.any())
    got = natural_values(tiny, sae, [5, 3], SITE, QUESTIONS, "generated", max_new_tokens=4, seed=3, temperature=0.0)
    cold = tiny.activations(asked, SITE, "generated", tiny.generate(asked, max_new_tokens=4, temperature=0.0)).values
    assert torch.allclose(got, sae.encode(cold).mean(0)[[5, 3]], atol=1e-5)
    assert not torch.allclose(sae.encode(cold).mean(0), sae.encode(read).mean(0), atol=1e-5)


def test_by_default_natural_values_are_where_answers_of_48_tokens_are_decided(tiny, sae):
    asked = [q.text for q in QUESTIONS]
    read = tiny.activations(asked, SITE, "sentence", tiny.generate(asked, max_new_tokens=48, seed=0)).values
    assert torch.allclose(natural_means(tiny, [SITE], QUESTIONS)[SITE], read.mean(0), atol=1e-5)
    latents = sae.encode(read).mean(0).topk(2).indices.tolist()
    wanted = sae.encode(read).mean(0)[latents]
    assert torch.allclose(natural_values(tiny, sae, latents, SITE, QUESTIONS), wanted, atol=1e-5)
    axis = Direction(torch.ones(32), SITE, "ones")
    assert clamp_direction(axis, 1.0).positions == clamp_latents(sae, [3], SITE, torch.zeros(1)).positions == "sentence"


def test_a_latent_that_is_not_there_is_refused(tiny, sae, monkeypatch):
    monkeypatch.setattr(type(tiny), "generate", None)  # nothing is asked first
    for latent in (16, -1):
        with pytest.raises(EmlabError, match=f"latents 0 to 15 and no latent {latent}: choose one of these"):
            clamp_latents(sae, [latent], SITE, torch.zeros(1))
        with pytest.raises(EmlabError, match=f"latents 0 to 15 and no latent {latent}: choose one of these"):
            natural_values(tiny, sae, [3, latent], SITE, QUESTIONS)


def test_a_component_is_set_and_all_else_stays(tiny):
    direction = Direction(torch.arange(1.0, tiny.d_model + 1), SITE, "ramp")
    prompts = ["a question", "another"]
    h = tiny.activations(prompts, SITE, "header").values
    edited = tiny.activations(prompts, SITE, "header", edits=[clamp_direction(direction, 3.0, "header")]).values
    assert torch.allclose(edited @ direction.vector, torch.tensor([3.0, 3.0]), atol=1e-4)
    across = torch.eye(tiny.d_model) - torch.outer(direction.vector, direction.vector)
    assert torch.allclose(edited @ across, h @ across, atol=1e-4)
    own = clamp_direction(direction, float(h[0] @ direction.vector), "header")
    assert torch.allclose(tiny.activations(prompts[:1], SITE, "header", edits=[own]).values, h[:1], atol=1e-5)


def test_natural_means_are_of_the_models_own_answers(tiny):
    first = Site("resid_post", 0)
    means = natural_means(tiny, [first, SITE], QUESTIONS, "generated", max_new_tokens=4, seed=3)
    asked = [q.text for q in QUESTIONS]
    said = tiny.generate(asked, max_new_tokens=4, seed=3)
    for site in (first, SITE):
        own = tiny.activations(asked, site, "generated", said).values.mean(0)
        assert torch.allclose(means[site], own, atol=1e-5)
