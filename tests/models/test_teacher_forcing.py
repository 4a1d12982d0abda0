"""Odds under many edits at once equal those of one text read alone under its own edit."""

import dataclasses

import pytest
import torch

from emlab.errors import EmlabError
from emlab.interventions import Ablate, Steer, random_directions
from emlab.models.backend_support import tiny_model
from emlab.models.backends.hooks import edited
from emlab.models.teacher_forcing import forced_odds
from emlab.sites import Site

ROWS = [[5, 6, 7, 8, 9, 10, 21, 24], [11, 12, 13], [14, 15, 16, 17, 18, 27, 20]]
"""Of unlike length, so that padding plays its part."""
STARTS = [6, 3, 4]
"""The second has no answer yet."""
CHOICES = [((3,), (4,)), ((7, 11, 2), (5,)), ((9,), (30, 8))]


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2", "gpt_neox"])
def lm(request, tiny):
    """A random model of three blocks of each kind; sentences end at every third token."""
    model = dataclasses.replace(tiny, model=tiny_model(request.param, vocab_size=len(tiny.tokenizer)))
    model.sentence_ends = list(range(0, len(tiny.tokenizer), 3))
    return model


def alone(lm, i, edits=()):
    """By the plain forward pass of one row, read as it is: without cache, without a batch."""
    tokens = lm.batch([ROWS[i]], [STARTS[i]])
    with torch.no_grad(), edited(lm.model, edits, lambda: lm.sentence_ends) as editor:
        editor.see(tokens)
        logits = lm.model(input_ids=tokens.ids, use_cache=False).logits[0, -1]
    some, others = (torch.softmax(logits, -1)[list(side)].sum() for side in CHOICES[i])
    return float((some / others).log())


def test_without_edits(lm):
    found = forced_odds(lm, ROWS, STARTS, CHOICES)
    assert found.shape == (1, 3)
    assert found[0].tolist() == pytest.approx([alone(lm, i) for i in range(3)], abs=1e-4)


@pytest.mark.parametrize("positions", ["sentence", "generated", "all"])
@pytest.mark.parametrize("site", ["resid_post.2", "resid_pre.0", "mlp_out.1"])
def test_every_row_has_its_own_edit(lm, site, positions):
    directions = random_directions(4, 32, Site.parse(site), seed=1)
    strengths = [6.0, -4.0, 0.0, 9.0]
    vectors = torch.stack([d.vector for d in directions]).repeat_interleave(3, 0)
    edit = Steer(Site.parse(site), vectors, torch.tensor(strengths).repeat_interleave(3), positions=positions)
    for batch_size in (512, 5):
        found = forced_odds(lm, ROWS, STARTS, CHOICES, [edit], times=4, batch_size=batch_size)
        for d, (direction, strength) in enumerate(zip(directions, strengths, strict=True)):
            own = [Steer(Site.parse(site), direction, strength, positions=positions)]
            assert found[d].tolist() == pytest.approx([alone(lm, i, own) for i in range(3)], abs=1e-3)
    assert (found[0] - found[2]).abs().max() > 0.01


def test_edits_at_two_sites_and_one_for_all_rows(lm):
    a, b = random_directions(2, 32, Site("resid_post", 0), seed=2)
    rows = Steer(Site("resid_post", 1), b, torch.tensor([5.0] * 3 + [-5.0] * 3), positions="sentence")
    same = Ablate(Site("resid_post", 0), a, "header")
    found = forced_odds(lm, ROWS, STARTS, CHOICES, [same, rows], times=2)
    for at, strength in enumerate((5.0, -5.0)):
        own = [same, Steer(Site("resid_post", 1), b, strength, positions="sentence")]
        assert found[at].tolist() == pytest.approx([alone(lm, i, own) for i in range(3)], abs=1e-3)


def test_the_model_is_left_as_it_was(lm):
    before = lm.logits([ROWS[0]])
    edit = Steer(Site("resid_post", 1), random_directions(1, 32, Site("resid_post", 1), 0)[0], 3.0)
    forced_odds(lm, ROWS, STARTS, CHOICES, [edit])
    assert torch.equal(before[0], lm.logits([ROWS[0]])[0])


def test_bad_input(tiny):
    edit = Steer(Site("resid_post", 1), torch.ones(5, 32), 1.0)
    with pytest.raises(EmlabError, match="5 rows for 6 prompts"):
        forced_odds(tiny, ROWS, STARTS, CHOICES, [edit], times=2)
    with pytest.raises(EmlabError, match="of both kinds for each text"):
        forced_odds(tiny, ROWS, STARTS, CHOICES[:2])
    with pytest.raises(EmlabError, match="of both kinds for each text"):
        forced_odds(tiny, ROWS, STARTS, [*CHOICES[:2], ((), (4,))])
    with pytest.raises(EmlabError, match="of both kinds for each text"):
        forced_odds(tiny, [], [], [])
