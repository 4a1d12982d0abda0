"""SAE training on sparse mixtures of known features."""

import pytest
import torch

from emlab.errors import EmlabError
from emlab.saes import fidelity, train_sae
from emlab.saes.recipe import SaeRecipe
from emlab.saes.sources import InMemory
from emlab.saes.train import fit_sae
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
    batches = InMemory(rows, SITE).batches(5, 100, seed=0)
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


def by_sae_lens(x, d_sae, k, steps, batch_size, seed):
    """The weights that SAELens' own trainer and its own `fit` come to, with the settings of `train_sae`."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    def batches():
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(x), generator=generator)
            for start in range(0, len(x) - batch_size + 1, batch_size):
                yield x[order[start : start + batch_size]]

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(d_in=x.shape[1], d_sae=d_sae, k=k, normalize_activations="expected_average_only_in")
        )
        config = SAETrainerConfig(
            total_training_samples=steps * batch_size,
            train_batch_size_samples=batch_size,
            lr=2e-3,
            lr_end=2e-4,
            lr_warm_up_steps=min(20, steps // 4),
            lr_decay_steps=steps // 3,
            dead_feature_window=max(10, steps // 10),
        )
        trainer = SAETrainer(cfg=config, sae=sae, data_provider=batches())
        scale = x.shape[1] ** 0.5 / float(x.norm(dim=1).mean())
        trainer.activation_scaler.scaling_factor = scale
        sae.b_dec.data = x.mean(dim=0) * scale
        trainer.fit()
        weights = {name: value.detach().clone() for name, value in sae.state_dict().items()}
        sae.process_state_dict_for_saving_inference(weights)
    return weights


def test_the_weights_are_those_of_sae_lens_own_loop():
    x, _ = planted(rows=1500)
    expected = by_sae_lens(x, 24, 3, steps=round(4 * 1500 / 128), batch_size=128, seed=3)
    found = train_sae(x, SITE, d_sae=24, k=3, passes=4, batch_size=128, seed=3).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("architecture", "more", "saved_as"),
    [
        ("batchtopk", {"k": 2}, "jumprelu"),
        ("matryoshka", {"k": 2, "widths": (10, 20)}, "jumprelu"),
        ("jumprelu", {"l0_coefficient": 0.3}, "jumprelu"),
    ],
)
def test_the_other_architectures_learn_and_come_back_from_disk(architecture, more, saved_as, tmp_path):
    import sae_lens

    from emlab.saes import save_sae

    x, _ = planted()
    recipe = SaeRecipe(architecture, d_sae=40, tokens=120_000, batch_size=256, seed=1, **more)
    training = fit_sae(InMemory(x, SITE, "toy"), recipe)
    found = fidelity(training.sae, planted(rows=2000)[0])
    assert found.explained_variance > 0.6 and found.l0 < 8
    loaded = sae_lens.SAE.load_from_disk(save_sae(training.sae, tmp_path / "sae"))
    assert loaded.cfg.architecture() == saved_as
    assert torch.equal(loaded.encode(x[:50]), training.sae.encode(x[:50]))
    assert torch.allclose(loaded.W_dec.norm(dim=1), torch.ones(40), atol=1e-4)
    metadata = loaded.cfg.metadata
    assert metadata.hook_name == "blocks.1.hook_resid_post" and metadata.model_name == "toy"
    assert metadata.emlab_kind == "plain" and metadata.emlab_recipe["architecture"] == architecture
    assert (training.steps, training.recipe.samples) == (468, 468 * 256) and training.samples_per_second > 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"architecture": "topkk"}, "no SAE architecture 'topkk'"),
        ({"k": 0}, "k=0 of d_sae=4096"),
        ({"k": 2.5}, "no whole number of latents"),
        ({"architecture": "matryoshka", "widths": (20, 10)}, "must rise"),
        ({"widths": (5000,)}, "must rise"),
        ({"tokens": 10}, "10 activations make no batch of 1024"),
        ({"learning_rate": 0.0}, "learning rate of 0.0"),
        ({"learning_rate": float("nan")}, "learning rate of nan"),
    ],
)
def test_a_recipe_that_makes_no_sae_is_refused(given, says):
    with pytest.raises(EmlabError, match=says):
        SaeRecipe(**given)


def test_a_training_that_diverges_is_said_to():
    x, _ = planted(rows=2000)
    with pytest.raises(EmlabError, match="has diverged: lower the learning rate"):
        fit_sae(InMemory(x, SITE), SaeRecipe(d_sae=16, k=2, tokens=6400, batch_size=64, learning_rate=1e30))
