"""The Triton kernels through Triton's interpreter, which runs them without a GPU. Skipped where Triton is not there.

Triton reads TRITON_INTERPRET when it is imported, so a process of their own runs them.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import emlab

CODE = """
import torch
from emlab.saes.sparse_products_triton import gather_dot, gather_sum

torch.manual_seed(0)
for dtype, close in ((torch.float32, 1e-4), (torch.float64, 1e-10)):
    for n, d, m, k in ((5, 300, 11, 3), (4, 256, 9, 1), (1, 7, 5, 5)):
        rows, left = torch.randn(m, d, dtype=dtype), torch.randn(n, d, dtype=dtype)
        index = torch.stack([torch.randperm(m)[:k] for _ in range(n)])
        value = torch.randn(n, k, dtype=dtype)
        want = (value[:, :, None] * rows[index]).sum(1)
        offsets = torch.arange(0, n * k + 1, k)
        got = gather_sum(rows, index.flatten(), value.flatten(), offsets, torch.full((n, d), 9.0, dtype=dtype))
        assert torch.allclose(got, want, atol=close), (got - want).abs().max()
        want = (left[:, None] * rows[index]).sum(-1)
        assert torch.allclose(gather_dot(left, rows, index), want, atol=close)
offsets = torch.tensor([0, 0, 2, 2, 3])  # segments of no, two, no and one row
rows = torch.tensor([[1.0, 2.0], [10.0, 20.0]])
got = gather_sum(rows, torch.tensor([0, 1, 1]), torch.tensor([2.0, 0.5, -1.0]), offsets, torch.empty(4, 2))
assert got.tolist() == [[0, 0], [7, 14], [0, 0], [-10, -20]]
print("agreed")
"""


def test_the_kernels_agree_with_dense_sums():
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(emlab.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "agreed\n"
