"""What a search is given in place of the truth."""

from pathlib import Path

import torch

from emlab.discovery import LatentShift
from emlab.experiments.persona_features.nulls import renamed_latents, shuffled
from emlab.models import LanguageModel
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
