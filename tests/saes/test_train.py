"""SAE training on sparse mixtures of known features."""

import pytest
import torch

from emlab.errors import EmlabError
from emlab.saes import fidelity, train_sae
from emlab.saes.train import shuffled_batches
from emlab.sites import Site

SITE = Site("resid_post", 1)


def planted(rows=20_000, d_in=12, features=20, seed=0):
    """Activations (rows, d_in): an offset plus one or two of `features` unit vectors; and those vectors."""
    generator = torch.Generator().manual_seed(seed)
    dictionary = torch.nn.functional.normalize(torch.randn(features, d_in, generator=generator), dim=1)
    which = torch.randint(features, (rows, 2), generator=generator)
    size = 1 + torch.rand(rows, 2, 1, generator=generator)
    return 3.0 + (size * dictionary[which]).sum(1), dictionary


@pytest.fixture(scope="module")
def trained():
    activations, dictionary = planted()
    return train_sae(activations, SITE, d_sae=40, k=2, passes=10, batch_size=256, seed=1, model_name="toy"), dictionary


def test_it_reconstructs_raw_activations(trained):
    sae, _ = trained
    fresh, _ = planted(seed=0)
    found = fidelity(sae, fresh)
    assert found.explained_variance > 0.8
    assert found.l0 <= 2


def test_latents_find_the_planted_features(trained):
    sae, dictionary = trained
    cosine = (torch.nn.functional.normalize(sae.W_dec, dim=1) @ dictionary.T).max(dim=0).values
    assert (cosine > 0.9).float().mean() >= 0.7


def test_decoder_rows_are_unit_and_the_site_is_kept(trained):
    sae, _ = trained
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(40), atol=1e-4)
    assert sae.cfg.metadata.hook_name == "blocks.1.hook_resid_post"
    assert sae.cfg.metadata.model_name == "toy"
    assert sae.cfg.architecture() == "topk"
    assert sae.cfg.normalize_activations == "none"


def test_the_seed_decides():
    activations, _ = planted(rows=2000)
    kind = {"d_sae": 16, "k": 2, "passes": 1, "batch_size": 128}
    state = torch.random.get_rng_state()
    one, again, other = (train_sae(activations, SITE, seed=s, **kind) for s in (5, 5, 6))
    assert torch.equal(one.W_dec, again.W_dec)
    assert not torch.equal(one.W_dec, other.W_dec)
    assert torch.equal(state, torch.random.get_rng_state()), "training must leave the global generator alone"


def test_batches_pass_over_every_row():
    rows = torch.arange(10.0)[:, None]
    batches = shuffled_batches(rows, 5, seed=0)
    first, second = (torch.cat([next(batches), next(batches)]) for _ in range(2))
    assert sorted(first.flatten().tolist()) == sorted(second.flatten().tolist()) == rows.flatten().tolist()
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("activations", "k", "says"),
    [
        (torch.zeros(0, 4), 2, "shape"),
        (torch.zeros(8, 4), 2, "all zero"),
        (torch.full((8, 4), float("nan")), 2, "not finite"),
        (torch.ones(8, 4), 17, "k=17"),
    ],
)
def test_it_refuses_what_makes_no_sae(activations, k, says):
    with pytest.raises(EmlabError, match=says):
        train_sae(activations, SITE, d_sae=16, k=k)
