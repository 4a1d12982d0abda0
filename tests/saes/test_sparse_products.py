"""The products that a TopK code needs, against dense ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emlab.saes import sparse_products
from emlab.saes.sparse_products import gather_dot, gather_sum

ROWS = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])


def test_sums_worked_out_by_hand():
    offsets = torch.tensor([0, 0, 2, 2, 3])  # segments of no, two, no and one row
    out = torch.full((4, 2), 9.0)
    got = gather_sum(ROWS, torch.tensor([0, 1, 2]), torch.tensor([2.0, 0.5, -1.0]), offsets, out)
    assert got is out
    assert out.tolist() == [[0, 0], [2 * 1 + 0.5 * 10, 2 * 2 + 0.5 * 20], [0, 0], [-100, -200]]


def test_dots_worked_out_by_hand():
    left = torch.tensor([[1.0, 1.0], [0.0, 3.0]])
    assert gather_dot(left, ROWS, torch.tensor([[0, 2], [1, 1]])).tolist() == [[3, 300], [60, 60]]


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    width=st.integers(1, 9),
    chunk=st.sampled_from([1, 64, 200, 2**23]),
    seed=st.integers(0, 99),
)
def test_sums_are_those_of_the_dense_product_in_pieces_of_any_size(counts, width, chunk, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(6, width, dtype=torch.float64, generator=generator)
    index = torch.randint(6, (sum(counts),), generator=generator)
    value = torch.randn(sum(counts), dtype=torch.float64, generator=generator)
    offsets = torch.tensor([0, *counts]).cumsum(0)
    dense = torch.zeros(len(counts), 6, dtype=torch.float64)
    segment = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    dense.index_put_((segment, index), value, accumulate=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_products, "CHUNK", chunk)
        got = gather_sum(rows, index, value, offsets, torch.empty(len(counts), width, dtype=torch.float64))
    assert torch.allclose(got, dense @ rows, atol=1e-12)


def test_dots_are_those_of_the_dense_product():
    torch.manual_seed(0)
    left, rows, index = torch.randn(7, 5), torch.randn(11, 5), torch.randint(11, (7, 3))
    assert torch.allclose(gather_dot(left, rows, index), (left @ rows.T).gather(1, index), atol=1e-5)
