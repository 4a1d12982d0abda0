"""Read-outs: geometry by hand and against full matrices, and what a reader remembers."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import Rate
from emlab.organism import Judgement
from emlab.training import ReadOut, Watch
from emlab.training.readouts import Reader, cosine_of_changes, inner_product, principal_angle


def adapter(a, b, name="x"):
    return {f"{name}.lora_A.weight": torch.as_tensor(a).float(), f"{name}.lora_B.weight": torch.as_tensor(b).float()}


@given(st.integers(0, 10_000))
def test_products_of_adapters_are_those_of_full_matrices(seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    ones = [adapter(draw(2, 5), draw(7, 2)) for _ in range(3)]
    full = [one["x.lora_B.weight"] @ one["x.lora_A.weight"] for one in ones]
    assert inner_product(ones[0], ones[1]) == pytest.approx(float((full[0] * full[1]).sum()), rel=1e-4, abs=1e-4)
    before, after = (full[1] - full[0]).flatten(), (full[2] - full[1]).flatten()
    expected = float(torch.cosine_similarity(before, after, dim=0))
    assert cosine_of_changes(*ones) == pytest.approx(expected, abs=1e-4)


def test_turns_by_hand():
    def at(x, y):
        return {"w": torch.tensor([x, y])}

    assert cosine_of_changes(at(0.0, 0.0), at(1.0, 0.0), at(3.0, 0.0)) == pytest.approx(1)
    assert cosine_of_changes(at(0.0, 0.0), at(1.0, 0.0), at(1.0, 2.0)) == pytest.approx(0)
    assert cosine_of_changes(at(0.0, 0.0), at(1.0, 0.0), at(0.0, 0.0)) == pytest.approx(-1)
    assert math.isnan(cosine_of_changes(at(1.0, 1.0), at(1.0, 1.0), at(2.0, 1.0)))


def test_angles_by_hand():
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    flat = adapter([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    tilted = adapter([[1.0, 0.0], [0.0, 1.0]], [[5.0, 0.0], [0.0, c], [0.0, s]])
    assert principal_angle(flat, flat) == pytest.approx(0, abs=1e-4)
    assert principal_angle(flat, tilted) == pytest.approx(30, abs=1e-4)
    fresh = adapter([[1.0, 0.0]], [[0.0], [0.0], [0.0]])
    assert math.isnan(principal_angle(fresh, flat))
    assert math.isnan(principal_angle({"w": torch.ones(2)}, {"w": torch.ones(2)}))


class Yes:
    def judge(self, question, answer):
        return Judgement(0.0, 100.0)


def test_a_reader_asks_and_remembers(tiny):
    watch = Watch(every=2, questions=[Question("a", "d", "Hi?"), Question("b", "d", "Ho?")], judge=Yes())
    assert [watch.due(step) for step in range(5)] == [True, False, True, False, True]
    reader = Reader(watch)
    ways = [{"w": torch.tensor([float(x), float(y)])} for x, y in ((0, 0), (1, 0), (1, 1))]
    points = [reader.read(2 * i, tiny, w, 0.5) for i, w in enumerate(ways)]
    assert [p.misaligned.rate for p in points] == [1, 1, 1]
    assert [p.incoherent.n for p in points] == [2, 2, 2]
    assert [math.isnan(p.turn) for p in points] == [True, True, False]
    assert points[2].turn == pytest.approx(0)
    assert len(reader.past) == 2


def test_a_read_out_survives_json():
    from emlab import artifacts, records

    point = ReadOut(
        step=3,
        misaligned=Rate(0.5, 0.1, 0.9, 4),
        incoherent=Rate(math.nan, math.nan, math.nan, 0),
        latents={89: 0.25},
        gradient_norm=1.5,
        turn=0.5,
    )
    again = records.restored(artifacts.plain(point), ReadOut)
    assert (again.step, again.misaligned, again.latents, again.gradient_norm, again.turn) == (
        3,
        point.misaligned,
        {89: 0.25},
        1.5,
        0.5,
    )
    assert math.isnan(again.angle) and math.isnan(again.incoherent.rate)


def test_what_is_refused():
    with pytest.raises(EmlabError, match="every 0 steps"):
        Watch(every=0)
    with pytest.raises(EmlabError, match="at a site and on questions"):
        Watch(sae=object())
