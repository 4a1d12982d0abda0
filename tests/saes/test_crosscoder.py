"""Crosscoders: decoders written down by hand, and two models whose features are known."""

from types import SimpleNamespace

import pytest
import torch

from emlab.errors import EmlabError
from emlab.saes import save_sae
from emlab.saes.crosscoder import Crosscoder, latent_scaling
from emlab.saes.recipe import SaeRecipe
from emlab.saes.sources import About, InMemory
from emlab.saes.train import fit_sae
from emlab.sites import Site

SITE = Site("resid_post", 1)


def by_hand():
    """Two models of width 2; in raw units the model after is twice as large, and its scale half."""
    before = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [0.5, 0.0]])
    after = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0], [0.0, 1.0]])
    metadata = SimpleNamespace(
        emlab_kind="crosscoder", emlab_widths=[2, 2], emlab_scales=[1.0, 0.5], emlab_models=["a", "b"]
    )
    return SimpleNamespace(W_dec=torch.cat([before, 2 * after], dim=1), cfg=SimpleNamespace(metadata=metadata))


def test_norms_and_cosines_by_hand():
    found = Crosscoder.of(by_hand())
    assert found.norms.tolist() == [[5, 5], [1, 0], [0, 2], [0.5, 1]]
    # ½ ((b − a) / max + 1): equal ½, a alone 0, b alone 1, ½ ((1 − ½) / 1 + 1) = ¾
    assert found.relative_norm.tolist() == [0.5, 0.0, 1.0, 0.75]
    assert found.cosine[[0, 3]].tolist() == pytest.approx([1.0, 0.0])
    assert (found.before_only.tolist(), found.after_only.tolist(), found.shared.tolist()) == ([1], [2], [0])
    assert "1 of 4 latents are of both models (median cosine of their decoders 1.00), 1 of a alone, 1 of b" in str(
        found
    )


def test_another_sae_is_no_crosscoder():
    sae = by_hand()
    sae.cfg.metadata.emlab_kind = "plain"
    with pytest.raises(EmlabError, match="is no crosscoder"):
        Crosscoder.of(sae)


class Pairs(InMemory):
    """Two models' activations in memory, side by side."""

    @property
    def about(self):
        return About("crosscoder", self.site, ("before", "after"), (16, 16))

    def batches(self, batch_size, total, seed, state=None):
        made = super().batches(batch_size, total, seed, state)
        statistics = made.statistics()
        parts = self.values.split(16, dim=1)
        norms = tuple(float(part.norm(dim=1).mean()) for part in parts)
        made.statistics = lambda: type(statistics)(statistics.mean, norms)
        return made


def planted(rows, seed):
    """Ten shared features; two more of the model after alone, whose activations are also three times as large."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.nn.functional.normalize(torch.randn(12, 16, generator=generator), dim=1)
    turned = torch.nn.functional.normalize(shared + 0.2 * torch.randn(12, 16, generator=generator), dim=1)
    generator.manual_seed(seed)
    which = torch.rand(rows, 12, generator=generator).topk(2, dim=1).indices
    size = torch.zeros(rows, 12).scatter(1, which, 1 + torch.rand(rows, 2, generator=generator))
    before = size.clone()
    before[:, 10:] = 0
    return torch.cat([before @ shared, 3 * size @ turned], dim=1), shared, turned


@pytest.fixture(scope="module")
def trained():
    x, shared, turned = planted(20_000, 1)
    recipe = SaeRecipe("batchtopk", d_sae=24, k=2, tokens=200_000, batch_size=256, learning_rate=3e-3, seed=0)
    return fit_sae(Pairs(x, SITE), recipe).sae, shared, turned


def test_a_crosscoder_tells_what_only_one_model_has(trained):
    sae, shared, turned = trained
    found = Crosscoder.of(sae)
    cosine = torch.nn.functional.normalize(found.after, dim=1) @ turned.T
    best = cosine.argmax(dim=0)
    assert float(cosine.max(dim=0).values.min()) > 0.85, "every feature has a latent"
    relative = found.relative_norm[best]
    assert float(relative[10:].min()) > 0.9, "the two new features are of the model after alone"
    assert float((relative[:10] - 0.5).abs().max()) < 0.15, "the others are of both, whatever the models' norms"


def test_it_takes_raw_activations_and_comes_back_from_disk(trained, tmp_path):
    import sae_lens

    sae, *_ = trained
    loaded = sae_lens.SAE.load_from_disk(save_sae(sae, tmp_path / "cross"))
    x, *_ = planted(2000, 2)
    assert torch.equal(loaded.encode(x), sae.encode(x))
    rebuilt = loaded.decode(loaded.encode(x))
    assert float(((x - rebuilt).square().sum() / (x - x.mean(0)).square().sum()).detach()) < 0.2
    assert torch.equal(Crosscoder.of(loaded).relative_norm, Crosscoder.of(sae).relative_norm)


def test_latent_scaling_is_the_least_squares_factor(trained):
    sae, *_ = trained
    x, *_ = planted(500, 3)
    found = latent_scaling(sae, x.split(100))
    decoders = Crosscoder.of(sae)
    latents, scales = sae.encode(x), sae.cfg.metadata.emlab_scales
    j = int(latents.sum(0).argmax())
    others = latents.clone()
    others[:, j] = 0
    direction = latents[:, j : j + 1] * decoders.after[j]
    for i, fitted in enumerate((found.error_before, found.error_after)):
        part = slice(16 * i, 16 * i + 16)
        left = ((x - sae.decode(others))[:, part] * scales[i]).flatten()
        solved = torch.linalg.lstsq(direction.flatten()[:, None].double(), left[:, None].double()).solution
        assert float(fitted[j]) == pytest.approx(float(solved), rel=1e-3)
    new = decoders.after_only
    assert float(found.nu_error[new].abs().max()) < 0.3 < 0.6 < float(found.nu_error[decoders.shared].nanmedian())
