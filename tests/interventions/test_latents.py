"""Latents ablated and clamped: by hand, on a dictionary that does not reconstruct what it reads."""

import pytest
import torch

from emlab.errors import EmlabError
from emlab.interventions import Ablate, Clamp, Steer, ablate_encoded, clamp_encoded
from emlab.sites import Site

SITE = Site("resid_post", 1)
# Two latents read the first two coordinates and write the same; the third coordinate is all error.
WRITES = torch.eye(3)[:2]
H = torch.tensor([[[3.0, 5.0, 7.0], [1.0, 0.0, -2.0]]])
ALL = torch.ones(1, 2).bool()


def encode(h):
    return h[..., :2].relu()


def test_ablating_takes_the_latents_own_part_and_keeps_the_error():
    assert ablate_encoded(SITE, encode, WRITES).edit(H, ALL).tolist() == [[[0.0, 0.0, 7.0], [0.0, 0.0, -2.0]]]
    first = ablate_encoded(SITE, lambda h: encode(h)[..., :1], WRITES[:1])
    assert first.edit(H, ALL).tolist() == [[[0.0, 5.0, 7.0], [0.0, 0.0, -2.0]]]
    to_mean = ablate_encoded(SITE, encode, WRITES, mean=torch.tensor([2.0, 4.0]))
    assert to_mean.edit(H, ALL).tolist() == [[[2.0, 4.0, 7.0], [2.0, 4.0, -2.0]]]


def test_clamping_to_a_value_or_a_multiple_of_the_maximum():
    assert clamp_encoded(SITE, encode, WRITES, 2.0).edit(H, ALL)[0, 0].tolist() == [2.0, 2.0, 7.0]
    each = clamp_encoded(SITE, encode, WRITES, torch.tensor([1.0, 6.0]))
    assert each.edit(H, ALL)[0, 0].tolist() == [1.0, 6.0, 7.0]
    twice = clamp_encoded(SITE, encode, WRITES, 2.0, maximum=torch.tensor([3.0, 0.5]))
    assert twice.edit(H, ALL)[0, 0].tolist() == [6.0, 1.0, 7.0]


def test_each_row_has_its_own_latent_value_and_mask():
    h = H.expand(3, 2, 3)
    of_row, mask = torch.tensor([1, 0, 1]), torch.tensor([[True, True], [True, False], [False, True]])
    edit = clamp_encoded(SITE, encode, WRITES, torch.tensor([9.0, 8.0, 7.0]), None, of_row, mask)
    assert edit.n_rows == 3
    out = edit.edit(h, mask)
    assert out.tolist() == [
        [[3.0, 9.0, 7.0], [1.0, 9.0, -2.0]],
        [[8.0, 5.0, 7.0], [1.0, 0.0, -2.0]],
        [[3.0, 5.0, 7.0], [1.0, 7.0, -2.0]],
    ]
    pick = torch.tensor([2, 0])
    assert torch.equal(edit.rows(pick).edit(h[pick], mask[pick]), out[pick])
    scaled = clamp_encoded(SITE, encode, WRITES, 2.0, torch.tensor([10.0, 100.0]), of_row, "all")
    assert scaled.edit(h, torch.ones(3, 2).bool())[:, 0].tolist() == [[3, 200, 7], [20, 5, 7], [3, 200, 7]]
    means = ablate_encoded(SITE, encode, WRITES, torch.tensor([0.5, 0.25]), of_row, "all")
    assert means.edit(h, torch.ones(3, 2).bool())[:, 0].tolist() == [[3, 0.25, 7], [0.5, 5, 7], [3, 0.25, 7]]


def test_a_reconstruction_does_not_undo_what_was_done_before():
    """What an earlier edit put outside of the dictionary, or took out of a latent, is there after a later clamp."""
    steer = Steer(SITE, torch.tensor([0.0, 0.0, 1.0]), 4.0, positions="all")
    zero_first = ablate_encoded(SITE, lambda h: encode(h)[..., :1], WRITES[:1], positions="all")
    set_second = clamp_encoded(SITE, lambda h: encode(h)[..., 1:], WRITES[1:], 1.0, positions="all")
    h = H
    for edit in (steer, zero_first, set_second):
        h = edit.edit(h, ALL)
    assert h.tolist() == [[[0.0, 1.0, 11.0], [0.0, 1.0, 2.0]]]
    assert encode(h).tolist() == [[[0.0, 1.0], [0.0, 1.0]]]
    # A stream rebuilt from the latents would have lost both the push and the error.
    assert not torch.allclose(encode(h) @ WRITES, h)


def test_two_sites_of_a_small_network_by_hand(tiny):
    """A latent ablated at one block and another clamped at the next: each from the stream that it then finds."""
    gen = torch.Generator().manual_seed(0)
    reads, writes = torch.randn(32, 2, generator=gen), torch.randn(2, 32, generator=gen)

    def acts(h):
        return (h @ reads).relu()

    below = ablate_encoded(Site("resid_post", 0), lambda h: acts(h)[..., :1], writes[:1], positions="all")
    above = clamp_encoded(Site("resid_post", 1), lambda h: acts(h)[..., 1:], writes[1:], 3.0, positions="all")
    prompt = [[5, 6, 7, 8]]

    def at(block, edits):
        return tiny.activations(prompt, Site("resid_post", block), "all", edits=edits).values

    plain, low = at(0, []), at(0, [below, above])
    assert torch.allclose(low, plain - acts(plain)[:, :1] @ writes[:1], atol=1e-5)
    found, high = at(1, [below]), at(1, [below, above])
    assert torch.allclose(high, found + (3.0 - acts(found)[:, 1:]) @ writes[1:], atol=1e-5)
    assert not torch.allclose(found, at(1, []), atol=1e-2), "what was done below has reached the block above"


def test_what_does_not_fit_is_refused():
    for call, text in (
        (lambda: clamp_encoded(SITE, encode, WRITES, torch.ones(3)), r"values \(3,\)"),
        (lambda: clamp_encoded(SITE, encode, WRITES, float("nan")), "not finite"),
        (lambda: clamp_encoded(SITE, encode, WRITES, 1.0, torch.ones(3)), "one for each latent"),
        (lambda: clamp_encoded(SITE, encode, WRITES, 1.0, None, torch.tensor([2])), "0 to 1"),
        (lambda: clamp_encoded(SITE, encode, WRITES, 1.0, None, torch.tensor([0.5])), "0 to 1"),
        (lambda: clamp_encoded(SITE, encode, WRITES, torch.ones(3), None, torch.tensor([0, 1])), "one, or one"),
    ):
        with pytest.raises(EmlabError, match=text):
            call()
    assert isinstance(ablate_encoded(SITE, encode, WRITES), Clamp)
    assert not isinstance(ablate_encoded(SITE, encode, WRITES), Ablate)
