"""Edits as pure functions: exact identities."""

import pytest
import torch

from emlab.errors import EmlabError
from emlab.interventions import Ablate, Clamp, Direction, Edit, Replace, Steer, random_directions
from emlab.sites import Site

SITE = Site("resid_post", 1)
GENERATOR = torch.Generator().manual_seed(0)
H = torch.randn(4, 5, 8, generator=GENERATOR)
EVERYWHERE = torch.ones(4, 5, dtype=torch.bool)
SOME = torch.rand(4, 5, generator=GENERATOR) < 0.5
DIRECTIONS = random_directions(4, 8, SITE, seed=1)


def test_they_are_edits():
    assert isinstance(Steer(SITE, DIRECTIONS[0]), Edit)
    assert isinstance(Ablate(SITE, DIRECTIONS[0]), Edit)


def test_steer_adds_strength_times_scale_times_the_unit_vector():
    direction = Direction(torch.tensor([0.0, 3.0]), SITE, "up")
    edited = Steer(SITE, direction, strength=0.5, scale=4.0).edit(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[True]]))
    assert edited.tolist() == [[[1.0, 3.0]]]


def test_with_scale_one_the_strength_is_absolute():
    """It is the length of what is added, whatever the length of the vector that was given."""
    for direction in (DIRECTIONS[0], 7 * DIRECTIONS[0].vector):
        moved = Steer(SITE, direction, strength=2.5).edit(H, EVERYWHERE) - H
        assert torch.allclose(moved.norm(dim=-1), torch.full((4, 5), 2.5), atol=1e-5)


def test_strength_zero_is_the_identity():
    assert torch.equal(Steer(SITE, DIRECTIONS[0], strength=0.0, scale=7.0).edit(H, EVERYWHERE), H)


@pytest.mark.parametrize("edit", [Steer(SITE, DIRECTIONS[0], 2.0), Ablate(SITE, DIRECTIONS)])
def test_elsewhere_it_is_untouched_bit_for_bit(edit):
    before = H.clone()
    edited = edit.edit(H, SOME)
    assert torch.equal(edited[~SOME], H[~SOME])
    assert not torch.isclose(edited[SOME], H[SOME]).all(-1).any()
    assert torch.equal(H, before), "the input must not change"


def test_a_nan_at_a_pad_stays_there():
    h = H.clone()
    h[0, 0] = float("nan")
    where = EVERYWHERE.clone()
    where[0, 0] = False
    for edit in (Steer(SITE, DIRECTIONS[0], 2.0), Ablate(SITE, DIRECTIONS[0])):
        assert edit.edit(h, where)[where].isfinite().all()


def test_rows_of_their_own_equal_one_by_one():
    vectors = torch.stack([d.vector for d in DIRECTIONS])
    strengths = torch.tensor([0.0, 1.0, -2.0, 0.5])
    together = Steer(SITE, vectors, strengths, scale=3.0)
    assert together.n_rows == 4
    edited = together.edit(H, SOME)
    for i, direction in enumerate(DIRECTIONS):
        alone = Steer(SITE, direction, float(strengths[i]), scale=3.0)
        assert alone.n_rows is None
        assert torch.equal(edited[i : i + 1], alone.edit(H[i : i + 1], SOME[i : i + 1]))
    pick = torch.tensor([2, 0])
    assert torch.equal(together.rows(pick).edit(H[pick], SOME[pick]), edited[pick])


def test_one_direction_with_a_strength_a_row_and_a_mask():
    edit = Steer(SITE, DIRECTIONS[0], torch.tensor([1.0, 2.0, 3.0, 4.0]), positions=SOME)
    assert edit.n_rows == 4
    half = edit.rows(torch.tensor([1, 3]))
    assert torch.equal(half.strength, torch.tensor([2.0, 4.0]))
    assert torch.equal(half.positions, SOME[[1, 3]])
    assert Ablate(SITE, DIRECTIONS, SOME).rows(torch.tensor([3])).n_rows == 1


def test_ablation_leaves_no_projection_and_is_idempotent():
    oblique = torch.stack([DIRECTIONS[0].vector, DIRECTIONS[0].vector + 0.1 * DIRECTIONS[1].vector])
    edit = Ablate(SITE, oblique)
    once = edit.edit(H, EVERYWHERE)
    assert (once @ oblique.T).abs().max() < 1e-5
    assert torch.allclose(edit.edit(once, EVERYWHERE), once, atol=1e-6)
    # What is orthogonal to the span is left: the difference lies in it.
    basis = torch.linalg.qr(oblique.T).Q
    difference = H - once
    assert torch.allclose(difference @ basis @ basis.T, difference, atol=1e-5)


def test_several_directions_are_projected_out_as_one_span():
    """Two oblique vectors of the first two axes: both axes go, and the third stays, which one after the other fails."""
    h = torch.tensor([[[1.0, 2.0, 3.0]]])
    oblique = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    once = Ablate(SITE, oblique).edit(h, torch.tensor([[True]]))
    assert torch.allclose(once, torch.tensor([[[0.0, 0.0, 3.0]]]), atol=1e-6)
    unit = oblique / oblique.norm(dim=-1, keepdim=True)
    each = h - sum((h @ u)[..., None] * u for u in unit)  # both taken from h: too much where they overlap
    assert not torch.allclose(each, once, atol=0.1)


def test_each_row_may_ablate_its_own():
    one = torch.stack([direction.vector for direction in DIRECTIONS])
    vectors = torch.stack([one, one.roll(1, 0)], dim=1)
    vectors[2, 1] = 0  # the third row ablates one only
    together = Ablate(SITE, vectors)
    assert together.n_rows == 4 and together.width == 8
    edited = together.edit(H, SOME)
    for i in range(4):
        alone = Ablate(SITE, vectors[i] if i != 2 else vectors[i, :1]).edit(H[i : i + 1], SOME[i : i + 1])
        assert torch.allclose(edited[i : i + 1], alone, atol=1e-6)
    pick = torch.tensor([3, 1])
    assert torch.equal(together.rows(pick).edit(H[pick], SOME[pick]), edited[pick])
    assert torch.equal(edited[~SOME], H[~SOME])


def test_a_direction_named_twice_counts_once():
    once = Ablate(SITE, DIRECTIONS[0]).edit(H, EVERYWHERE)
    twice = Ablate(SITE, [DIRECTIONS[0], -DIRECTIONS[0]]).edit(H, EVERYWHERE)
    assert torch.allclose(once, twice, atol=1e-6)


def test_what_was_moved_to_a_device_while_generating_does_for_gradients_too():
    edit = Ablate(SITE, DIRECTIONS)
    with torch.inference_mode():
        edit.edit(H.to("meta"), EVERYWHERE.to("meta"))
    assert edit._basis.device.type == "meta" and not edit._basis.is_inference()


def test_half_precision_keeps_its_type():
    for edit in (Steer(SITE, DIRECTIONS[0]), Ablate(SITE, DIRECTIONS[0])):
        assert edit.edit(H.bfloat16(), EVERYWHERE).dtype == torch.bfloat16


def test_what_is_refused():
    with pytest.raises(EmlabError, match="width 8 in a stream of width 6"):
        Steer(SITE, DIRECTIONS[0]).edit(torch.zeros(1, 1, 6), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(EmlabError, match="strength 0 for no edit"):
        Steer(SITE, torch.zeros(2, 8))
    with pytest.raises(EmlabError, match="one for every row"):
        Steer(SITE, torch.ones(2, 8), torch.ones(3))
    with pytest.raises(EmlabError, match="names no direction"):
        Ablate(SITE, [])
    for directions in (torch.zeros(2, 8), torch.full((8,), float("nan")), torch.full((2, 1, 8), float("inf"))):
        with pytest.raises(EmlabError, match="has no length"):
            Ablate(SITE, directions)
    with pytest.raises(EmlabError, match="for each row its own"):
        Ablate(SITE, torch.zeros(1, 1, 1, 8))
    with pytest.raises(EmlabError, match="2 rows of direction and 4 rows of positions"):
        Steer(SITE, torch.ones(2, 8), positions=SOME)
    nan = float("nan")
    for strength, scale in ((nan, 1.0), (float("inf"), 1.0), (torch.tensor([1.0, nan]), 1.0), (1.0, nan), (3e38, 2.0)):
        with pytest.raises(EmlabError, match="not finite"):
            Steer(SITE, torch.ones(2, 8), strength, scale)
    with pytest.raises(EmlabError, match="There are no positions"):
        Steer(SITE, DIRECTIONS[0], positions="everywhere")


def test_clamp_moves_only_what_the_latents_write():
    # Two latents that read the first two coordinates and write e2 and 2·e3.
    writes = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    edit = Clamp(SITE, lambda h: h[..., :2], writes, torch.tensor([0.0, 1.0]), "all")
    h = torch.tensor([[[3.0, 5.0, 7.0], [1.0, 1.0, 1.0]]])
    where = torch.tensor([[True, False]])
    # First latent 3 → 0 takes 3 from e2; second 5 → 1 takes 4, twice, from e3.
    assert torch.equal(edit.edit(h, where), torch.tensor([[[3.0, 2.0, -1.0], [1.0, 1.0, 1.0]]]))
    with pytest.raises(EmlabError, match="values"):
        Clamp(SITE, lambda h: h, writes, torch.zeros(3))


def test_replace_puts_what_the_function_gives():
    edit = Replace(SITE, lambda h: h * 2)
    h = torch.ones(1, 2, 3, dtype=torch.bfloat16)
    out = edit.edit(h, torch.tensor([[True, False]]))
    assert out.dtype == torch.bfloat16
    assert out[0, 0].tolist() == [2.0, 2.0, 2.0] and out[0, 1].tolist() == [1.0, 1.0, 1.0]


def test_each_row_may_clamp_its_own_latents():
    writes = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    h = torch.tensor([[[3.0, 5.0, 7.0]], [[3.0, 5.0, 7.0]]])
    values = torch.tensor([[1.0, 9.0], [9.0, 4.0]])
    edit = Clamp(SITE, lambda h: h[..., :2], writes, values, "all", torch.tensor([[True, False], [False, True]]))
    assert edit.n_rows == 2 and edit.width == 3
    out = edit.edit(h, torch.ones(2, 1, dtype=torch.bool))
    # The first row sets the first latent, 3 → 1; the second row the second, 5 → 4, which writes twice its activation.
    assert out.tolist() == [[[3.0, 3.0, 7.0]], [[3.0, 5.0, 5.0]]]
    assert torch.equal(edit.rows(torch.tensor([1])).edit(h[1:], torch.tensor([[True]])), out[1:])
    with pytest.raises(EmlabError, match=r"bool tensor \(batch, 2\)"):
        Clamp(SITE, lambda h: h, writes, values, "all", torch.ones(2, 3).bool())
    with pytest.raises(EmlabError, match="2 rows of values and 3 rows of only"):
        Clamp(SITE, lambda h: h, writes, values, "all", torch.ones(3, 2).bool())


def test_an_encoder_or_value_that_does_not_fit_is_refused():
    writes = torch.ones(2, 8)
    with pytest.raises(EmlabError, match="one activation for each of the 2 latents"):
        Clamp(SITE, lambda h: h[..., :1], writes, torch.zeros(2)).edit(H, EVERYWHERE)
    with pytest.raises(EmlabError, match="not finite"):
        Clamp(SITE, lambda h: h, writes, torch.tensor([0.0, float("nan")]))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: Clamp(SITE, lambda h: h[..., :1], torch.ones(1, 3), torch.zeros(1), p),
        lambda p: Replace(SITE, lambda h: h, p),
    ],
)
def test_a_mask_of_positions_follows_the_rows(make):
    mask = torch.tensor([[True, False], [False, True]])
    edit = make(mask)
    assert edit.n_rows == 2 and make("all").n_rows is None
    assert edit.rows(torch.tensor([1])).positions.tolist() == [[False, True]]
    assert make("all").rows(torch.tensor([1])).positions == "all"


def test_a_sites_name_does_as_well():
    vector = torch.tensor([3.0, 4.0])
    edits = [
        Steer("resid_post.1", vector),
        Ablate("blocks.1.hook_resid_post", vector),
        Clamp("resid_post.1", lambda h: h[..., :1], vector[None], torch.zeros(1)),
        Replace("resid_post.1", lambda h: h),
        Direction(vector, "resid_post.1", "by hand"),
    ]
    assert [edit.site for edit in edits] == [Site("resid_post", 1)] * 5
    with pytest.raises(EmlabError, match="resid_pots"):
        Steer("resid_pots.1", vector)
