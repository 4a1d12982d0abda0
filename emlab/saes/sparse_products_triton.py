"""The two products of `sparse_products` as Triton kernels: one program a sum, none of them atomic.

Every sum is taken in one order by one program, so the same inputs give the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 256
"""Columns that a program holds at a time."""


@triton.jit
def _gather_sum(  # type: ignore[no-untyped-def]
    rows, index, value, offsets, out, width, row_stride, out_stride, WIDE: tl.constexpr, BLOCK: tl.constexpr
):
    segment = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    total = tl.zeros([BLOCK], dtype=WIDE)
    for t in range(tl.load(offsets + segment), tl.load(offsets + segment + 1)):
        row = tl.load(index + t).to(tl.int64)
        weight = tl.load(value + t).to(WIDE)
        total += weight * tl.load(rows + row * row_stride + column, mask=inside, other=0.0).to(WIDE)
    tl.store(out + segment * out_stride + column, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gather_dot(  # type: ignore[no-untyped-def]
    left, rows, index, out, k, width, left_stride, row_stride, WIDE: tl.constexpr, BLOCK: tl.constexpr
):
    entry = tl.program_id(0).to(tl.int64)
    row = tl.load(index + entry).to(tl.int64)
    total = tl.zeros([BLOCK], dtype=WIDE)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < width
        one = tl.load(left + entry // k * left_stride + column, mask=inside, other=0.0).to(WIDE)
        total += one * tl.load(rows + row * row_stride + column, mask=inside, other=0.0).to(WIDE)
    tl.store(out + entry, tl.sum(total, axis=0).to(out.dtype.element_ty))


def gather_sum(rows: Tensor, index: Tensor, value: Tensor, offsets: Tensor, out: Tensor) -> Tensor:
    """`sparse_products.gather_sum`."""
    rows, segments, width = rows.contiguous(), *out.shape
    if out.numel():
        grid = (segments, triton.cdiv(width, COLUMNS))
        _gather_sum[grid](
            rows, index, value, offsets, out, width, rows.stride(0), out.stride(0), WIDE=_wide(rows), BLOCK=COLUMNS
        )
    return out


def gather_dot(left: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """`sparse_products.gather_dot`."""
    left, rows, index = left.contiguous(), rows.contiguous(), index.contiguous()
    out = left.new_empty(index.shape)
    if out.numel():
        k, width = index.shape[1], left.shape[1]
        _gather_dot[(index.numel(),)](
            left, rows, index, out, k, width, left.stride(0), rows.stride(0), WIDE=_wide(rows), BLOCK=COLUMNS
        )
    return out


def _wide(rows: Tensor) -> tl.dtype:
    """The type that sums are taken in."""
    return tl.float64 if rows.dtype == torch.float64 else tl.float32
