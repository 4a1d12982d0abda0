"""SAEs on disk: SAELens reads what emlab writes, bit for bit."""

import pytest
import torch

from emlab.errors import EmlabError
from emlab.saes import load_sae, sae_site, save_sae, train_sae
from emlab.sites import Site


@pytest.fixture(scope="module")
def sae():
    x = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    return train_sae(x, Site("resid_post", 2), d_sae=16, k=3, passes=1, batch_size=64)


def test_plain_sae_lens_loads_it(sae, tmp_path):
    import sae_lens

    folder = save_sae(sae, tmp_path / "sae")
    loaded = sae_lens.SAE.load_from_disk(folder)
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded.encode(x), sae.encode(x))
    assert torch.equal(loaded.decode(loaded.encode(x)), sae.decode(sae.encode(x)))
    assert sorted(p.name for p in folder.iterdir()) == ["cfg.json", "sae_weights.safetensors"]


def test_it_comes_back_with_its_site(sae, tmp_path):
    loaded = load_sae(save_sae(sae, tmp_path / "sae"))
    assert sae_site(loaded) == Site("resid_post", 2)
    assert not loaded.W_dec.requires_grad


def test_a_folder_without_an_sae_is_named(tmp_path):
    with pytest.raises(EmlabError, match=r"cfg\.json and sae_weights\.safetensors missing"):
        load_sae(tmp_path)


def test_damage_is_one_sentence(sae, tmp_path):
    folder = save_sae(sae, tmp_path / "sae")
    (folder / "sae_weights.safetensors").write_bytes(b"half a file")
    with pytest.raises(EmlabError, match="cannot be loaded"):
        load_sae(folder)
    (folder / "cfg.json").write_text("{")
    with pytest.raises(EmlabError, match="cannot be loaded .*double quotes"):
        load_sae(folder)


def test_an_existing_sae_is_not_overwritten(sae, tmp_path):
    save_sae(sae, tmp_path / "sae")
    with pytest.raises(EmlabError, match="exists"):
        save_sae(sae, tmp_path / "sae")
