"""Directions from decoders and from means."""

import pytest
import torch

from emlab.discovery import decoder_direction, mean_difference
from emlab.errors import EmlabError


def test_mean_difference_by_hand(given):
    # Means: aligned (0, 0), insecure (1, 2).
    found = mean_difference(given.aligned, given.insecure, given.prompts, given.site)
    assert found.norm == pytest.approx(5**0.5)
    assert torch.allclose(found.vector, torch.tensor([1.0, 2.0]) / 5**0.5)
    assert found.site == given.site


def test_several_models_are_averaged(given):
    other = given.model("medicine", *[[(3.0, 0.0)]] * 3)
    found = mean_difference(given.aligned, [given.insecure, other], given.prompts, given.site)
    assert torch.allclose(found.vector * found.norm, torch.tensor([2.0, 1.0]))


def test_models_that_do_not_differ_have_no_difference(given):
    with pytest.raises(EmlabError, match="do not differ at resid_post.1"):
        mean_difference(given.aligned, given.aligned, given.prompts, given.site)


def test_decoder_direction_is_the_unit_row(given):
    sae = given.sae([[3.0, 4.0], [0.0, 1.0], [1.0, 0.0]])
    found = decoder_direction(sae, 0, given.site)
    assert torch.allclose(found.vector, torch.tensor([0.6, 0.8]))
    assert found.origin == "latent 0"
    with pytest.raises(EmlabError, match="no latent 3"):
        decoder_direction(sae, 3, given.site)
