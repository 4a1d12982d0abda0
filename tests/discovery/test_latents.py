"""Latents are read and written in one unit and at their own site, whichever function asks."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from emlab.data import Question
from emlab.detection import ActivationMonitor, LabelledEvidence, evidence, fit_latents
from emlab.discovery import (
    Contrast,
    attribute,
    clamp_latents,
    decoder_direction,
    exact_effects,
    latent_shift,
    latent_weights,
    natural_values,
    read_contexts,
)
from emlab.discovery.shift import prompt_means
from emlab.errors import EmlabError
from emlab.interventions import ablate_encoded
from emlab.saes import encode, load_sae, loss_recovered, save_sae, writes
from emlab.sites import Site
from emlab.training import Watch
from emlab.training.readouts import Reader

SITE, ELSEWHERE = Site("resid_post", 0), Site("resid_post", 2)
QUESTIONS = [Question(f"q{i}", "power", text) for i, text in enumerate(["one two", "three", "a b c d", "and so on"])]
PROMPTS = [question.text for question in QUESTIONS]
ASKED = [Contrast("say it", "yes", "no"), Contrast("say so", "yes", "no")]


@pytest.fixture(scope="module")
def unit(tiny):
    """A jumprelu SAE of 24 latents with unit rows."""
    from sae_lens import SAE

    generator = torch.Generator().manual_seed(5)
    rows = torch.nn.functional.normalize(torch.randn(24, tiny.d_model, generator=generator), dim=1)
    config = {"architecture": "jumprelu", "d_in": tiny.d_model, "d_sae": 24}
    sae = SAE.from_dict({**config, "metadata": {"hook_name": SITE.lens_name}}).eval().requires_grad_(False)
    zeros = {"b_enc": torch.zeros(24), "b_dec": torch.zeros(tiny.d_model)}
    sae.load_state_dict({"W_enc": rows.T.contiguous(), "W_dec": rows, "threshold": torch.full((24,), 0.01), **zeros})
    return sae


@pytest.fixture(scope="module")
def uneven(unit):
    """The same function, with rows from a twentieth to twenty."""
    lengths = torch.logspace(-1.3, 1.3, 24)[torch.randperm(24, generator=torch.Generator().manual_seed(2))]
    sae = copy.deepcopy(unit)
    sae.W_dec.mul_(lengths[:, None])
    for weight in (sae.W_enc, sae.b_enc, sae.threshold):
        weight.div_(lengths)
    return sae


@pytest.fixture(scope="module")
def tuned(tiny):
    """Another model with the same tokens."""
    other = dataclasses.replace(tiny.copy(), name="tuned")
    with torch.no_grad():
        for weight in other.model.model.layers[0].parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return other


def shifted(tiny, tuned, sae):
    return latent_shift(tiny, tuned, sae, PROMPTS, SITE)


def fitted(tiny, tuned, sae, n=1):
    cases = [
        LabelledEvidence(evidence(m, QUESTIONS, [SITE]), np.array([m is tuned] * 4), "d", m.name) for m in (tiny, tuned)
    ]
    return fit_latents(cases, sae, SITE, n), cases


def test_the_same_function_in_other_units_ranks_the_same(tiny, tuned, unit, uneven):
    one, other = (shifted(tiny, tuned, sae) for sae in (unit, uneven))
    assert one.order.tolist() == other.order.tolist()
    for name in ("before", "after", "standard_error"):
        assert torch.allclose(getattr(one, name), getattr(other, name), atol=1e-5), name
    assert float(one.shift.abs().max()) > 0.1


def test_edits_are_as_long(tiny, tuned, unit, uneven):
    """Set to their values in the aligned model, and to zero."""
    latents = shifted(tiny, tuned, unit).order[:3].tolist()
    values = natural_values(tiny, unit, latents, SITE, QUESTIONS, max_new_tokens=4)
    assert torch.allclose(natural_values(tiny, uneven, latents, SITE, QUESTIONS, max_new_tokens=4), values, atol=1e-5)
    h = tuned.activations(PROMPTS, SITE, "header").values
    for to in (values, torch.zeros(3)):
        moved = []
        for sae in (unit, uneven):
            edit = clamp_latents(sae, latents, SITE, to, "header")
            moved.append(tuned.activations(PROMPTS, SITE, "header", edits=[edit]).values - h)
        assert torch.allclose(*moved, atol=1e-4) and float(moved[0].norm(dim=1).max()) > 0.1
    taken = []
    for sae in (unit, uneven):
        edit = ablate_encoded(
            SITE, lambda h, sae=sae: encode(sae, h, latents), writes(sae, latents), positions="header"
        )
        taken.append(tuned.activations(PROMPTS, SITE, "header", edits=[edit]).values - h)
    assert torch.allclose(taken[0], taken[1], atol=1e-4) and torch.allclose(taken[0], moved[0], atol=1e-4)
    assert decoder_direction(uneven, 3, SITE).norm == pytest.approx(1.0)


def test_effects_and_monitors_and_contexts_and_read_outs_are_the_same(tiny, tuned, unit, uneven):
    for method in ("gradient", "integrated", "patching"):
        one, other = (attribute(tiny, sae, ASKED, SITE, method, steps=1, blocks=2).effects for sae in (unit, uneven))
        assert torch.allclose(one, other, atol=1e-5) and bool(one.any()), method
    one, other = (exact_effects(tiny, sae, ASKED, SITE).effects for sae in (unit, uneven))
    assert torch.allclose(one, other, atol=1e-5)
    for n in (1, 3):
        (first, cases), (second, _) = (fitted(tiny, tuned, sae, n) for sae in (unit, uneven))
        assert first.reads.latents == second.reads.latents
        assert first.scores(cases[1].evidence) == pytest.approx(second.scores(cases[1].evidence), abs=1e-3)
    watch = [Watch(questions=QUESTIONS, sae=sae, site=SITE, latents=(2, 5)) for sae in (unit, uneven)]
    one, other = (Reader(w).read(0, tuned, {}).latents for w in watch)
    assert one == pytest.approx(other, abs=1e-5) and any(one.values())
    one, other = (read_contexts(tiny, sae, [2, 5], SITE, PROMPTS).latents for sae in (unit, uneven))
    assert [c.peak for each in one for c in each.top] == pytest.approx(
        [c.peak for each in other for c in each.top], abs=1e-4
    )
    one, other = (latent_weights(tiny, sae, [2], SITE, 3)[0] for sae in (unit, uneven))
    assert [near.latent for near in one.nearest] == [near.latent for near in other.nearest]


def test_a_monitor_knows_its_sae_again_when_that_is_loaded(tiny, tuned, uneven, unit, tmp_path):
    monitor, cases = fitted(tiny, tuned, uneven, 3)
    kept = monitor.save(tmp_path / "monitor.safetensors")
    again = ActivationMonitor.load(kept, load_sae(save_sae(uneven, tmp_path / "sae")))
    assert again.scores(cases[1].evidence) == pytest.approx(monitor.scores(cases[1].evidence), abs=1e-3)
    other = copy.deepcopy(unit)
    other.W_enc.mul_(1.01)
    with pytest.raises(EmlabError, match="reads latents of another SAE"):
        ActivationMonitor.load(kept, other)


def test_tokens_that_are_scaled_one_by_one_have_no_vector_to_clamp_along(tiny, unit):
    for scaled in ("layer_norm", "constant_norm_rescale"):
        sae = copy.deepcopy(unit)
        sae.cfg.normalize_activations = scaled
        with pytest.raises(EmlabError, match=f"normalises activations by {scaled}, so what a latent writes differs"):
            clamp_latents(sae, [2], SITE, torch.zeros(1))


ASKS = {
    "latent_shift": lambda tiny, tuned, sae: latent_shift(tiny, tuned, sae, PROMPTS, ELSEWHERE),
    "latent_shift, by name": lambda tiny, tuned, sae: latent_shift(tiny, tuned, sae, PROMPTS, str(ELSEWHERE)),
    "prompt_means": lambda tiny, tuned, sae: prompt_means(tiny, PROMPTS, ELSEWHERE, "header", sae),
    "attribute": lambda tiny, tuned, sae: attribute(tiny, sae, ASKED, ELSEWHERE),
    "exact_effects": lambda tiny, tuned, sae: exact_effects(tiny, sae, ASKED, ELSEWHERE),
    "decoder_direction": lambda tiny, tuned, sae: decoder_direction(sae, 2, ELSEWHERE),
    "latent_weights": lambda tiny, tuned, sae: latent_weights(tiny, sae, [2], ELSEWHERE),
    "clamp": lambda tiny, tuned, sae: clamp_latents(sae, [2], ELSEWHERE, torch.zeros(1)),
    "natural_values": lambda tiny, tuned, sae: natural_values(tiny, sae, [2], ELSEWHERE, QUESTIONS),
    "read_contexts": lambda tiny, tuned, sae: read_contexts(tiny, sae, [2], ELSEWHERE, PROMPTS),
    "fit_latents": lambda tiny, tuned, sae: fit_latents(fitted(tiny, tuned, sae)[1], sae, ELSEWHERE),
    "a monitor": lambda tiny, tuned, sae: dataclasses.replace(fitted(tiny, tuned, sae)[0], site=ELSEWHERE),
    "loss_recovered": lambda tiny, tuned, sae: loss_recovered(sae, tiny, ELSEWHERE, [], torch.zeros(tiny.d_model)),
    "Watch": lambda tiny, tuned, sae: Watch(questions=QUESTIONS, sae=sae, site=ELSEWHERE),
}


@pytest.mark.parametrize("asks", ASKS)
def test_an_sae_of_another_site_is_refused(asks, tiny, tuned, unit):
    with pytest.raises(EmlabError, match="trained at resid_post.0 and means nothing at resid_post.2; read it at resid"):
        ASKS[asks](tiny, tuned, unit)


def test_an_sae_of_differences_reads_no_model(tiny, tuned, unit):
    sae = copy.deepcopy(unit)
    sae.cfg.metadata.emlab_kind = "difference"
    for asks in (shifted, fitted):
        with pytest.raises(EmlabError, match="is of the difference of two models' activations and does not read"):
            asks(tiny, tuned, sae)


def test_what_ships_thrice_as_long_is_the_same_sae(tmp_path):
    """W_dec × 3, encoder and bias ÷ 3, activations rescaled by the rows' lengths: what SAELens trains by default."""
    kept = load_sae("sae_checkpoints/organism-resid_post.0")
    long = copy.deepcopy(kept)
    long.W_dec.mul_(3)
    long.W_enc.div_(3)
    long.b_enc.div_(3)
    long.save_model(tmp_path / "long")
    x = torch.randn(8, kept.cfg.d_in, generator=torch.Generator().manual_seed(0)) * 3
    for sae in (long, load_sae(tmp_path / "long")):
        edits = [clamp_latents(one, [5, 89], SITE, torch.tensor([0.0, 2.0]), "all") for one in (kept, sae)]
        here = torch.ones(1, 8, dtype=torch.bool)
        assert torch.allclose(*(edit.edit(x[None], here) for edit in edits), atol=1e-4)
