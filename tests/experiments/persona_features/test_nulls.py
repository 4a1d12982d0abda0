"""What a search is given in place of the truth."""

from pathlib import Path

import pytest
import torch

from emlab.discovery import LatentShift
from emlab.experiments.persona_features.nulls import renamed_latents, shuffled, without_direction
from emlab.interventions import Direction
from emlab.models import LanguageModel
from emlab.saes import load_sae, sae_site
from emlab.sites import Site
from emlab.training import FineTuned, Recipe

SAE = Path(__file__).parents[3] / "sae_checkpoints" / "organism-resid_post.0"


def test_shuffled_labels_exchange_at_least_one_narrow_set_with_a_control():
    kinds = {"insecure": "narrow", "bad_medicine": "narrow", "bad_law": "unseen", "secure": "control"}
    tuned = {
        name: FineTuned(LanguageModel(None, None, name), (float(i),), 1, 0, 1, Recipe(), 0, None)
        for i, name in enumerate(kinds)
    }
    for seed in range(20):
        mixed = shuffled(tuned, kinds, seed)
        assert [t.model.name for t in mixed.values()] == list(kinds), "names stay in their places"
        origin = {name: list(kinds)[int(t.losses[0])] for name, t in mixed.items()}
        assert sorted(origin.values()) == sorted(kinds) and origin["bad_law"] == "bad_law"
        assert {origin["insecure"], origin["bad_medicine"]} != {"insecure", "bad_medicine"}


def test_renamed_latents_keep_their_figures_together():
    rows = torch.arange(50.0)
    shifts = [LatentShift("a", b, Site("resid_post", 0), "header", 2, rows * 0, rows, rows / 10) for b in "bc"]
    one, other = (renamed_latents(shift, 3) for shift in shifts)
    assert torch.equal(one.after, other.after), "in every model alike"
    assert torch.equal(one.standard_error, one.after / 10) and torch.equal(one.after.sort().values, rows)
    assert (one.after == rows).float().mean() < 0.2
    assert not torch.equal(one.after, renamed_latents(shifts[0], 4).after)


def test_an_sae_without_a_direction_neither_reads_nor_writes_it():
    sae, generator = load_sae(SAE), torch.Generator().manual_seed(0)
    direction = Direction(torch.randn(sae.cfg.d_in, generator=generator), sae_site(sae), "persona")
    found, unit = without_direction(sae, direction), direction.vector / direction.vector.norm()
    x = torch.randn(40, sae.cfg.d_in, generator=generator)
    latents = found.encode(x)
    assert torch.allclose(found.encode(x + 5 * unit), latents, atol=1e-4)
    assert (found.decode(latents) @ unit).abs().max() < 1e-4
    assert (sae.decode(sae.encode(x)) @ unit).abs().max() > 0.1, "the SAE itself is as it was"
    other = torch.linalg.qr(torch.stack([unit, torch.randn(len(unit), generator=generator)], dim=1)).Q[:, 1]
    assert found.W_dec @ other == pytest.approx(sae.W_dec @ other, abs=1e-4), "and what is orthogonal stays"
