"""Fidelity, against numbers worked out by hand on an SAE whose weights are written down."""

from types import SimpleNamespace

import pytest
import torch

from emlab.errors import EmlabError
from emlab.saes import fidelity, loss_recovered
from emlab.sites import Site


class Ramp:
    """Two latents, relu(x0) and relu(x1), that decode to x0 and x1: negative parts are lost."""

    class cfg:
        d_in, d_sae = 2, 3

    W_dec = torch.zeros(3, 2)

    def encode(self, x):
        return torch.cat([x.relu(), torch.zeros(len(x), 1)], dim=1)

    def decode(self, latents):
        return latents[:, :2]


def test_explained_variance_is_about_the_mean():
    # mean (1, 0); variance Σ‖x−mean‖² = 1 + 1 + 4 + 4 = 10; only (1, −2) is lost in part, error 4.
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 2.0], [1.0, -2.0]])
    found = fidelity(Ramp(), x)
    assert found.explained_variance == pytest.approx(1 - 4 / 10)
    assert found.l0 == pytest.approx((0 + 1 + 2 + 1) / 4)
    assert found.dead == 1
    assert (found.d_sae, found.tokens) == (3, 4)


def test_batches_do_not_change_it():
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)) + 3
    whole, parts = fidelity(Ramp(), x), fidelity(Ramp(), x, batch_size=7)
    assert parts.explained_variance == pytest.approx(whole.explained_variance, rel=1e-9)
    assert (parts.l0, parts.dead) == (whole.l0, whole.dead)


def test_a_large_common_offset_is_not_explained_variance():
    # About zero, the offset alone would give nearly 1 here; about the mean, losing every negative part is visible.
    x = torch.tensor([[100.0, 1.0], [100.0, -1.0]])
    assert fidelity(Ramp(), x).explained_variance == pytest.approx(1 - 1 / 2)


def test_it_refuses_what_it_cannot_measure():
    with pytest.raises(EmlabError, match="at least two"):
        fidelity(Ramp(), torch.zeros(1, 2))
    with pytest.raises(EmlabError, match="reads 2 dimensions"):
        fidelity(Ramp(), torch.zeros(4, 5))


def test_loss_recovered_is_one_for_a_perfect_sae_and_nothing_for_the_mean(tiny):
    site = Site("resid_post", 1)
    chats = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello there"}]]
    mean = tiny.activations(chats, site, "all").values.mean(0)
    same = SimpleNamespace(W_dec=torch.zeros(1), encode=lambda h: h, decode=lambda h: h)
    flat = SimpleNamespace(W_dec=torch.zeros(1), encode=lambda h: h, decode=lambda h: mean.expand_as(h))
    perfect, nothing = (loss_recovered(sae, tiny, site, chats, mean) for sae in (same, flat))
    if torch.isnan(torch.tensor(perfect)):  # a random model may lose nothing by the mean; then it is said to be nan
        assert torch.isnan(torch.tensor(nothing))
    else:
        assert perfect == pytest.approx(1.0, abs=1e-4) and nothing == pytest.approx(0.0, abs=1e-4)
