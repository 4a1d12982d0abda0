"""An SAE from which a direction is taken out."""

from pathlib import Path

import pytest
import torch

from emlab.saes import load_sae, without_direction

SAE = Path(__file__).parents[2] / "sae_checkpoints" / "organism-resid_post.0"


def test_an_sae_without_a_direction_neither_reads_nor_writes_it():
    sae, generator = load_sae(SAE), torch.Generator().manual_seed(0)
    direction = torch.randn(sae.cfg.d_in, generator=generator)
    found, unit = without_direction(sae, direction), direction / direction.norm()
    x = torch.randn(40, sae.cfg.d_in, generator=generator)
    latents = found.encode(x)
    assert torch.allclose(found.encode(x + 5 * unit), latents, atol=1e-4)
    assert (found.decode(latents) @ unit).abs().max() < 1e-4
    assert (sae.decode(sae.encode(x)) @ unit).abs().max() > 0.1, "the SAE itself is as it was"
    other = torch.linalg.qr(torch.stack([unit, torch.randn(len(unit), generator=generator)], dim=1)).Q[:, 1]
    assert found.W_dec @ other == pytest.approx(sae.W_dec @ other, abs=1e-4), "and what is orthogonal stays"
