"""Latents read in chunks are those of one pass."""

import torch

from emlab.saes import encoding, latent_values, train_sae
from emlab.sites import Site


def test_chunks_change_nothing(monkeypatch):
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    sae = train_sae(x, Site("resid_post", 0), d_sae=12, k=3, passes=1, batch_size=25)
    monkeypatch.setattr(encoding, "AT_ONCE", 7 * 12)  # seven tokens
    assert len(encoding.chunks(sae, 50)) == 8
    assert torch.allclose(latent_values(sae, x, [5, 2]), sae.encode(x)[:, [5, 2]], atol=1e-6)
    assert latent_values(sae, x[:0], [1]).shape == (0, 1)
