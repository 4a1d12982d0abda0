"""Directions: unit, with their natural norm; random ones; saving."""

import pytest
import torch

from emlab.errors import EmlabError
from emlab.interventions import Direction, load_directions, random_directions, save_directions
from emlab.sites import Site

SITE = Site("resid_post", 1)


def test_a_vector_is_made_unit_and_its_length_kept():
    direction = Direction(torch.tensor([3.0, 4.0]), SITE, "by hand")
    assert torch.allclose(direction.vector, torch.tensor([0.6, 0.8]))
    assert direction.norm == 5.0
    assert torch.equal((-direction).vector, -direction.vector)
    assert (-direction).norm == 5.0
    assert Direction(direction.vector, SITE, "again", norm=2.0).norm == 2.0


def test_cosine():
    east, north_east = (Direction(torch.tensor(v), SITE, "") for v in ([2.0, 0.0], [1.0, 1.0]))
    assert east.cosine(north_east) == pytest.approx(0.5**0.5)
    assert east.cosine(-east) == pytest.approx(-1)


@pytest.mark.parametrize("vector", [torch.zeros(3), torch.tensor([1.0, float("nan")]), torch.ones(2, 3)])
def test_what_points_nowhere_is_refused(vector):
    with pytest.raises(EmlabError):
        Direction(vector, SITE, "bad")


def test_random_directions_follow_the_seed_and_cover_the_sphere():
    draws = random_directions(500, 16, SITE, seed=3)
    again = random_directions(500, 16, SITE, seed=3)
    assert all(torch.equal(a.vector, b.vector) for a, b in zip(draws, again, strict=True))
    vectors = torch.stack([d.vector for d in draws])
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(500), atol=1e-6)
    # The mean of 500 has length about 1 / sqrt(500) = 0.045, and each coordinate's variance is 1 / 16.
    assert vectors.mean(0).norm() < 0.1
    assert torch.allclose(vectors.var(0), torch.full((16,), 1 / 16), atol=0.02)


def test_fewer_than_none_are_refused():
    assert random_directions(0, 16, SITE, seed=0) == []
    with pytest.raises(
        EmlabError, match=r"^-2 random directions at resid_post.1 cannot be drawn; ask for 0 or more\.$"
    ):
        random_directions(-2, 16, SITE, seed=0)


def test_they_are_read_back_bit_for_bit(tmp_path):
    directions = [*random_directions(3, 8, SITE, seed=0), Direction(torch.ones(8), Site("attn_out", 0), "ones — 1")]
    save_directions(directions, tmp_path / "d.safetensors")
    for a, b in zip(directions, load_directions(tmp_path / "d.safetensors"), strict=True):
        assert torch.allclose(a.vector, b.vector, atol=1e-7)
        assert (a.site, a.origin, a.norm) == (b.site, b.origin, b.norm)
    directions[0].save(tmp_path / "one.safetensors")
    assert Direction.load(tmp_path / "one.safetensors").origin == "random 0"


def test_of_a_file_of_several_one_is_named(tmp_path):
    path, before = tmp_path / "d.safetensors", Site("resid_post", 0)
    save_directions([*random_directions(2, 8, SITE, seed=0), *random_directions(1, 8, before, seed=1)], path)
    assert Direction.load(path, "random 1").origin == "random 1"
    assert Direction.load(path, "random 0 at resid_post.0").site == before
    listed = r"holds 3 directions \(random 0 at resid_post.1, random 1 at resid_post.1, random 0 at resid_post.0\)"
    for named, told in ((None, "; name one"), ("random 7", ", none of them named"), ("random 0", ", 2 of them named")):
        with pytest.raises(EmlabError, match=listed + told):
            Direction.load(path, named)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(EmlabError, match="cannot be read as directions .it is a folder.; give the file"):
        load_directions(tmp_path)
    with pytest.raises(EmlabError, match="check the path"):
        load_directions(tmp_path / "none.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(EmlabError, match="holds no directions"):
        load_directions(tmp_path / "junk.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(EmlabError, match="holds no directions"):
        load_directions(tmp_path / "other.safetensors")
