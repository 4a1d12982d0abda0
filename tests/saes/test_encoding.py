"""Latents read in chunks are those of one pass."""

import torch

from emlab.saes import encoding, latent_values, train_sae
from emlab.sites import Site


def test_chunks_change_nothing():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    sae = train_sae(x, Site("resid_post", 0), d_sae=12, k=3, passes=1, batch_size=25)
    at_once = latent_values(sae, x, [5, 2])
    assert len(encoding.chunks(sae, 50)) == 1 and len(encoding.chunks(sae, 50, budget=7 * 12 * 4)) == 8
    parts = list(encoding.dense_chunks(sae, x, budget=7 * 12 * 4))
    assert [part.start for part, _ in parts] == list(range(0, 50, 7))
    assert torch.allclose(torch.cat([dense for _, dense in parts]), sae.encode(x), atol=1e-6)
    assert torch.allclose(at_once, sae.encode(x)[:, [5, 2]], atol=1e-6)
    assert latent_values(sae, x[:0], [1]).shape == (0, 1)
