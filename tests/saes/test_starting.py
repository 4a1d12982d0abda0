"""Beginning from an SAE that exists."""

import copy
import dataclasses

import pytest
import torch

from emlab.errors import EmlabError
from emlab.saes import encode, fidelity, load_sae, save_sae, train_sae
from emlab.saes.recipe import SaeRecipe
from emlab.saes.sources import InMemory
from emlab.saes.train import fit_sae
from emlab.sites import Site

SITE = Site("resid_post", 1)


def planted(seed, rows=4000, tilt=0.0):
    """Sparse mixtures of twenty directions in twelve dimensions, tilted a little."""
    generator = torch.Generator().manual_seed(0)
    dictionary = torch.nn.functional.normalize(torch.randn(20, 12, generator=generator), dim=1)
    dictionary = dictionary + tilt * torch.randn(20, 12, generator=generator)
    generator.manual_seed(seed)
    which = torch.randint(20, (rows, 2), generator=generator)
    return 3.0 + ((1 + torch.rand(rows, 2, 1, generator=generator)) * dictionary[which]).sum(1)


@pytest.fixture(scope="module")
def base():
    return train_sae(planted(1, 20_000), SITE, d_sae=40, k=2, passes=6, batch_size=256)


def test_a_training_without_steps_to_speak_of_gives_the_sae_back(base):
    recipe = SaeRecipe(tokens=64, batch_size=64, k=2, d_sae=2, learning_rate=1e-12)
    again = fit_sae(InMemory(planted(2), SITE), recipe, start=base).sae
    assert again.cfg.d_sae == 40 and again.cfg.k == 2
    x = planted(3)
    assert torch.allclose(again.encode(x), base.encode(x), atol=1e-4)
    assert torch.allclose(again.decode(again.encode(x)), base.decode(base.encode(x)), atol=1e-4)


def test_one_that_chose_its_latents_by_rows_of_other_lengths_goes_on_choosing_so(base, tmp_path):
    """As sparsify writes them without normalize_decoder: loaded, its rows are unit, and its choice is what it was."""
    uneven = copy.deepcopy(base)
    lengths = torch.logspace(-1, 1, 40)
    uneven.W_dec.mul_(lengths[:, None])
    uneven.cfg.rescale_acts_by_decoder_norm = False
    loaded = load_sae(save_sae(uneven, tmp_path / "sae"))
    recipe = SaeRecipe(tokens=64, batch_size=64, k=2, d_sae=2, learning_rate=1e-12)
    again, x = fit_sae(InMemory(planted(2), SITE), recipe, start=loaded).sae, planted(3)
    assert torch.allclose(encode(again, x), base.encode(x) * lengths, atol=1e-3)
    assert torch.allclose(again.decode(again.encode(x)), loaded.decode(loaded.encode(x)), atol=1e-3)


def test_fine_tuning_fits_the_changed_model_and_keeps_its_latents(base):
    changed = planted(4, 20_000, tilt=0.1)
    recipe = SaeRecipe(tokens=40_000, batch_size=256, k=2, d_sae=40, learning_rate=5e-4)
    tuned = fit_sae(InMemory(changed, SITE), recipe, start=base).sae
    fresh = planted(5, tilt=0.1)
    assert fidelity(tuned, fresh).explained_variance > fidelity(base, fresh).explained_variance + 0.02
    alive = (base.encode(fresh) > 0).any(0) & (tuned.encode(fresh) > 0).any(0)
    cosine = torch.nn.functional.cosine_similarity(tuned.W_dec, base.W_dec, dim=1)[alive]
    assert float(cosine.median()) > 0.9


def test_batchtopk_goes_on_from_its_saved_threshold():
    x = planted(1, 10_000)
    first = fit_sae(InMemory(x, SITE), SaeRecipe("batchtopk", 40, 2, tokens=40_000, batch_size=256)).sae
    recipe = SaeRecipe("batchtopk", 40, 2, tokens=64, batch_size=64, learning_rate=1e-12)
    again = fit_sae(InMemory(x, SITE), recipe, start=first).sae
    # The threshold is a running mean, which one step moves by a hundredth.
    assert torch.allclose(again.threshold, first.threshold, rtol=0.02)
    assert torch.allclose(again.W_dec, first.W_dec, atol=1e-5)


def test_an_sae_that_does_not_fit_is_refused(base):
    recipe = SaeRecipe(tokens=64, batch_size=64, k=2, d_sae=40)
    with pytest.raises(EmlabError, match="reads 12 dimensions and the activations have 5"):
        fit_sae(InMemory(torch.randn(64, 5), SITE), recipe, start=base)
    with pytest.raises(EmlabError, match=r"reads blocks\.1\.hook_resid_post and the activations are of blocks\.2"):
        fit_sae(InMemory(planted(1), Site("resid_post", 2)), recipe, start=base)
    with pytest.raises(EmlabError, match="is a topk, which jumprelu does not go on from"):
        fit_sae(InMemory(planted(1), SITE), dataclasses.replace(recipe, architecture="jumprelu"), start=base)
