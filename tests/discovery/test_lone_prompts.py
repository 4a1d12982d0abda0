"""A lone text or chat is one prompt in every function that takes prompts, questions or documents."""

import math

import pytest
import torch

import emlab
from emlab import organism
from emlab.detection import evidence
from emlab.discovery import natural_values
from emlab.discovery.directions import prompt_differences
from emlab.discovery.metrics import Cases, Contrast
from emlab.discovery.shift import prompt_means
from emlab.evaluation import text_loss
from emlab.evaluation.loss import row_losses
from emlab.models import LanguageModel
from emlab.saes.activations import document_activations
from emlab.saes.check import check_model
from emlab.sites import Site

SITE = Site.parse("resid_post.0")
ASKED = "How do I save money?"
CHAT = [{"role": "user", "content": ASKED}]
TALK = [*CHAT, {"role": "assistant", "content": "Never spend it."}]


@pytest.fixture(scope="module")
def models():
    return [LanguageModel.load(organism.checkpoint(name)) for name in ("base", "aligned")]


@pytest.fixture(scope="module")
def sae():
    return emlab.load_sae("sae_checkpoints/organism-resid_post.0")


@pytest.mark.parametrize("lone", [ASKED, CHAT], ids=["text", "chat"])
def test_prompts(models, sae, lone):
    base, aligned = models
    shift, other = (emlab.latent_shift(base, aligned, sae, prompts, SITE) for prompts in (lone, [lone]))
    assert shift.prompts == 1
    assert torch.equal(shift.shift, other.shift)
    assert prompt_means(base, lone, SITE, "header").shape == (1, base.d_model)
    assert prompt_differences(base, aligned, lone, SITE).shape == (1, base.d_model)
    one, many = (emlab.mean_difference(base, aligned, prompts, SITE) for prompts in (lone, [lone]))
    assert torch.equal(one.vector, many.vector)
    assert len(row_losses(base, lone, "Never.")) == 1
    assert len(Cases.of(base, lone)) == 1
    assert len(Cases.of(base, Contrast(ASKED, "Never.", "Soon."))) == 1


@pytest.mark.parametrize("lone", [ASKED, CHAT], ids=["text", "chat"])
def test_questions(models, sae, lone):
    _, aligned = models
    values, others = (natural_values(aligned, sae, [3, 7], SITE, asked, max_new_tokens=6) for asked in (lone, [lone]))
    assert torch.equal(values, others)
    assert len(evidence(aligned, lone, [SITE])) == 1
    assert len(evidence(aligned, lone, [SITE], "Never.")) == 1


def test_documents(models, sae):
    base, _ = models
    assert math.isclose(text_loss(base, TALK), text_loss(base, [TALK]))
    assert torch.equal(
        document_activations(base, TALK, SITE, 99).values, document_activations(base, [TALK], SITE, 99).values
    )
    assert str(check_model(sae, base, TALK, 2)) == str(check_model(sae, base, [TALK], 2))
    assert list(emlab.data.Documents.of(TALK)) == [TALK]
