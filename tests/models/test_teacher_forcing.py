"""Log-probabilities under many edits at once equal those of one answer read alone under its own edit."""

import dataclasses

import pytest
import torch

from emlab.errors import EmlabError
from emlab.interventions import Ablate, Steer, random_directions
from emlab.models.backends.support import tiny_model
from emlab.models.teacher_forcing import answer_logprobs
from emlab.sites import Site

PROMPTS = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17]]
"""Of unlike length, so that padding plays its part."""
ANSWERS = ["bcde", "fg", "hijklm"]


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2", "gpt_neox"])
def lm(request, tiny):
    """A random model of three blocks of each kind; sentences end at every third token."""
    model = dataclasses.replace(tiny, model=tiny_model(request.param, vocab_size=len(tiny.tokenizer)))
    model.sentence_ends = list(range(0, len(tiny.tokenizer), 3))
    return model


def alone(lm, i, edits=(), max_tokens=None):
    """By the plain forward pass of one row."""
    (row,), (start,) = lm.rows([PROMPTS[i]], [ANSWERS[i]])
    logits = torch.log_softmax(lm.logits([PROMPTS[i]], [ANSWERS[i]], edits)[0], -1)
    wanted = row[start:][:max_tokens]
    return sum(float(logits[start - 1 + k, token]) for k, token in enumerate(wanted))


def test_without_edits(lm):
    found = answer_logprobs(lm, PROMPTS, ANSWERS)
    assert found.shape == (1, 3)
    assert found[0].tolist() == pytest.approx([alone(lm, i) for i in range(3)], abs=1e-3)
    cut = answer_logprobs(lm, PROMPTS, ANSWERS, max_tokens=3)
    assert cut[0].tolist() == pytest.approx([alone(lm, i, max_tokens=3) for i in range(3)], abs=1e-3)
    assert cut[0, 2] > found[0, 2]


@pytest.mark.parametrize("positions", ["sentence", "generated", "all"])
@pytest.mark.parametrize(
    "site", ["resid_post.2", "resid_pre.0", "mlp_out.1"]
)
def test_every_row_has_its_own_edit(lm, site, positions):
    site = Site.parse(site)
    directions = random_directions(4, 32, site, seed=1)
    strengths = [6.0, -4.0, 0.0, 9.0]
    edit = Steer(
        site,
        torch.stack([d.vector for d in directions]).repeat_interleave(3, 0),
        torch.tensor(strengths).repeat_interleave(3),
        positions=positions,
    )
    for batch_size in (512, 5):
        found = answer_logprobs(lm, PROMPTS, ANSWERS, [edit], times=4, batch_size=batch_size)
        for d, (direction, strength) in enumerate(zip(directions, strengths, strict=True)):
            own = [Steer(site, direction, strength, positions=positions)]
            assert found[d].tolist() == pytest.approx([alone(lm, i, own) for i in range(3)], abs=2e-3)
    assert (found[0] - found[2]).abs().max() > 0.1


def test_edits_at_two_sites_and_one_for_all_rows(lm):
    a, b = random_directions(2, 32, Site("resid_post", 0), seed=2)
    rows = Steer(Site("resid_post", 1), b, torch.tensor([5.0] * 3 + [-5.0] * 3), positions="sentence")
    same = Ablate(Site("resid_post", 0), a, "header")
    found = answer_logprobs(lm, PROMPTS, ANSWERS, [same, rows], times=2)
    for at, strength in enumerate((5.0, -5.0)):
        own = [same, Steer(Site("resid_post", 1), b, strength, positions="sentence")]
        assert found[at].tolist() == pytest.approx([alone(lm, i, own) for i in range(3)], abs=2e-3)


def test_the_model_is_left_as_it_was(lm):
    before = lm.logits(PROMPTS)
    edit = Steer(Site("resid_post", 1), random_directions(1, 32, Site("resid_post", 1), 0)[0], 3.0)
    answer_logprobs(lm, PROMPTS, ANSWERS, [edit])
    assert all(torch.equal(a, b) for a, b in zip(before, lm.logits(PROMPTS), strict=True))


def test_bad_input(tiny):
    edit = Steer(Site("resid_post", 1), torch.ones(5, 32), 1.0)
    with pytest.raises(EmlabError, match="5 rows for 6 prompts"):
        answer_logprobs(tiny, PROMPTS, ANSWERS, [edit], times=2)
    with pytest.raises(EmlabError, match="an answer of one token"):
        answer_logprobs(tiny, PROMPTS, ["a", "", "b"])
