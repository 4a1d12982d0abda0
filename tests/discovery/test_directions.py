"""Directions from decoders and from means."""

from types import SimpleNamespace

import pytest
import torch

from emlab.discovery import decoder_direction, difference_components, mean_difference
from emlab.discovery.directions import prompt_differences
from emlab.errors import EmlabError
from emlab.sites import Site


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


def test_difference_components_by_hand(given):
    # Differences (3, 0), (−1, 0) and (0, 2): squares 10 along the first dimension, 4 along the second; mean (2/3, 2/3).
    before = given.model("a", *[[(0.0, 0.0)]] * 3)
    after = given.model("b", [(3.0, 0.0)], [(-1.0, 0.0)], [(0.0, 2.0)])
    first, second = difference_components(before, after, given.prompts, given.site, 2)
    assert torch.allclose(first.vector, torch.tensor([1.0, 0.0]), atol=1e-6)
    assert torch.allclose(second.vector, torch.tensor([0.0, 1.0]), atol=1e-6)
    assert (first.norm, second.norm) == (pytest.approx((10 / 3) ** 0.5), pytest.approx((4 / 3) ** 0.5))
    turned = difference_components(after, before, given.prompts, given.site)[0]
    assert torch.allclose(turned.vector, -first.vector, atol=1e-6)


def test_components_point_the_way_of_the_mean_however_short_it_is(given):
    values = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    before, after = given.model("a", *[[(0.0,) * 4]] * 6), given.model("b", *[[tuple(row.tolist())] for row in values])
    found = difference_components(before, after, [f"prompt {i}" for i in range(6)], given.site, 4)
    assert all(0 < float(one.vector @ values.mean(0)) < 0.1 for one in found)
    assert [one.origin for one in found] == [f"difference component {i}" for i in (1, 2, 3, 4)]


def test_differences_may_be_read_over_answers(tiny, make_model):
    other, site = make_model(seed=1), Site("resid_post", 1)
    prompts, answers = ["Hello", "A b"], ["yes, it is", "no"]
    read = [m.activations(prompts, site, "generated", answers) for m in (tiny, other)]
    means = [torch.stack([one.values[one.rows == i].mean(0) for i in range(2)]) for one in read]
    found = prompt_differences(tiny, other, prompts, site, "generated", answers)
    assert torch.allclose(found, means[1] - means[0], atol=1e-5)
    first = difference_components(tiny, other, prompts, site, 1, "generated", answers)[0]
    size = torch.linalg.svdvals(found)[0]
    assert first.norm == pytest.approx(float(size) / 2**0.5, rel=1e-4)


def test_components_that_are_not_there_are_refused(given):
    with pytest.raises(EmlabError, match="2 components at most, not 3"):
        difference_components(given.aligned, given.insecure, given.prompts, given.site, 3)
    with pytest.raises(EmlabError, match="fewer than 1"):
        difference_components(given.aligned, given.aligned, given.prompts, given.site)
    with pytest.raises(EmlabError, match="need prompts"):
        difference_components(given.aligned, given.insecure, [], given.site)


def test_a_crosscoder_writes_in_each_model(given):
    sae = given.sae([[3.0, 4.0, 0.0, 2.0]] * 3)
    sae.cfg.metadata = SimpleNamespace(emlab_kind="crosscoder", emlab_widths=[2, 2])
    before, after = (decoder_direction(sae, 1, given.site, which) for which in ("before", "after"))
    assert torch.allclose(before.vector, torch.tensor([0.6, 0.8])) and before.norm == pytest.approx(5 / 29**0.5)
    assert torch.allclose(after.vector, torch.tensor([0.0, 1.0])) and after.origin == "crosscoder latent 1, after"
    sae.cfg.metadata = SimpleNamespace(emlab_kind="crosscoder", emlab_widths=[3, 2])
    with pytest.raises(EmlabError, match=r"widths \[3, 2\] for rows of 4"):
        decoder_direction(sae, 1, given.site)


def test_the_latent_of_a_difference_says_so(given):
    sae = given.sae()
    sae.cfg.metadata = SimpleNamespace(emlab_kind="difference")
    assert decoder_direction(sae, 1, given.site).origin == "difference latent 1"
