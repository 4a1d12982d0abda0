"""The two products that a TopK code needs, forwards and backwards.

A TopK code has k entries a token, kept as their latents `index` (tokens, k) and values (tokens, k). All that a training
step does with it is one of two products over rows that are looked up, never over all latents:

- `gather_sum`: the weighted sum of some rows of a matrix, for each of many segments. Decoding sums decoder rows over a
  token's latents; the gradient of a weight matrix sums tokens over a latent's firings.
- `gather_dot`: the dot product of a token's row with each of its latents' rows: the gradient of the values.

On CUDA both are Triton kernels where Triton is installed, else PyTorch's embedding bags, which do the same sums.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

CHUNK = 2**23
"""Bytes of result asked of PyTorch at a time on a CPU. Memory of this size is used again by the next call; a larger
piece is fetched from the system and given back every time, and its page faults cost more than the sums."""


def gather_sum(rows: Tensor, index: Tensor, value: Tensor, offsets: Tensor, out: Tensor) -> Tensor:
    """`out[s] = Σ_t value[t] · rows[index[t]]` over t from offsets[s] to offsets[s + 1] - 1; returns `out`.

    `rows` is (r, d), `index` and `value` are (t,), `offsets` is (s + 1,) and ascends from 0 to t, `out` is (s, d).
    """
    if triton_serves(rows):
        from emlab.saes import sparse_products_triton

        return sparse_products_triton.gather_sum(rows, index, value, offsets, out)
    segments, width = out.shape
    step = max(1, CHUNK // (width * rows.element_size())) if rows.device.type == "cpu" else segments
    starts = list(range(0, segments, step))
    bounds = offsets[[*starts, segments]].tolist()
    for start, first, last in zip(starts, bounds[:-1], bounds[1:], strict=True):
        end = min(start + step, segments)
        out[start:end] = torch.nn.functional.embedding_bag(
            index[first:last],
            rows,
            offsets[start : end + 1] - first,
            mode="sum",
            per_sample_weights=value[first:last],
            include_last_offset=True,
        )
    return out


def gather_dot(left: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """`out[i, j] = left[i] · rows[index[i, j]]`, of `left` (n, d), `rows` (r, d) and `index` (n, k): (n, k)."""
    if triton_serves(rows):
        from emlab.saes import sparse_products_triton

        return sparse_products_triton.gather_dot(left, rows, index)
    n, k = index.shape
    # PyTorch's own gradient of an embedding bag with respect to its weights; 0 is the mode "sum".
    bags = torch.arange(n, device=index.device)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        left, rows, index.flatten(), bags * k, bags.repeat_interleave(k), 0
    ).view(n, k)


def triton_serves(rows: Tensor) -> bool:
    """Whether `rows` lie where Triton's kernels run, and Triton is installed."""
    return rows.device.type == "cuda" and importlib.util.find_spec("triton") is not None
