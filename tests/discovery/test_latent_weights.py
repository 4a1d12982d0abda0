"""What a latent's weights say, by hand: tokens from the unembedding, neighbours from the decoder."""

from types import SimpleNamespace

import pytest
import torch

from emlab.discovery import Neighbour, latent_weights
from emlab.errors import EmlabError
from emlab.models import direct_logits
from emlab.sites import Site

SITE = Site("resid_post", 1)


def sae_of(rows):
    rows = torch.tensor(rows) if isinstance(rows, list) else rows
    return SimpleNamespace(W_dec=rows, cfg=SimpleNamespace(d_in=rows.shape[1], d_sae=len(rows)))


def test_neighbours_are_by_cosine_and_never_the_latent_itself(tiny):
    rows = torch.zeros(5, 32)
    rows[0, 0], rows[1, 0], rows[2, 1], rows[3, 0] = 2.0, 3.0, 1.0, -1.0
    rows[4, :2] = torch.tensor([3.0, 4.0])
    (found,) = latent_weights(tiny, sae_of(rows), [0], SITE, n=2)
    assert found.nearest == (Neighbour(1, 1.0), Neighbour(4, pytest.approx(0.6)))
    assert found.opposed == (Neighbour(3, -1.0), Neighbour(2, 0.0))
    (alone,) = latent_weights(tiny, sae_of(rows[:1]), [0], SITE)
    assert alone.nearest == alone.opposed == ()


def test_tokens_are_those_of_the_direct_effect_of_the_unit_row(tiny):
    torch.manual_seed(0)
    rows = torch.randn(3, 32)
    found = latent_weights(tiny, sae_of(rows), [2, 0], SITE, n=4)
    for latent, one in zip([2, 0], found, strict=True):
        effects = direct_logits(tiny, rows[latent : latent + 1] / rows[latent].norm())[0]
        order = effects.argsort(descending=True).tolist()
        assert [e.token for e in one.promoted] == [tiny.tokenizer.decode([i]) for i in order[:4]]
        assert [e.effect for e in one.suppressed] == pytest.approx([float(effects[i]) for i in order[::-1][:4]])
        assert one.promoted[0].effect > 0 > one.suppressed[0].effect


def test_heads_outputs_have_no_direct_effect_and_still_neighbours(tiny):
    (found,) = latent_weights(tiny, sae_of(torch.eye(3, 32)), [1], Site("z", 0), n=1)
    assert found.promoted == found.suppressed == () and found.nearest


def test_what_goes_wrong_is_one_sentence(tiny):
    with pytest.raises(EmlabError, match="no latent 9"):
        latent_weights(tiny, sae_of(torch.eye(3, 32)), [9], SITE)
    with pytest.raises(EmlabError, match="0 tokens of a latent"):
        latent_weights(tiny, sae_of(torch.eye(3, 32)), [0], SITE, n=0)
