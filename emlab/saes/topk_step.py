"""The reconstruction of a TopK SAE and its gradients, at the cost of the one dense product that it cannot avoid.

The encoder must look at every latent of every token: a dense matrix product. After it only k latents a token are not
zero, so decoding, and every gradient, is a sum over those (`sparse_products`). Latents that have died, for the
auxiliary loss of Gao et al. 2024 (arXiv:2406.04093, appendix A.2), are a dense block of their own columns.

Where a latent is ranked by activation × decoder norm (SAELens' `rescale_acts_by_decoder_norm`), it is decoded by that
product ÷ norm, so that the norm decides only which latents are kept, and its gradient is exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emlab.saes.sparse_products import CHUNK, gather_dot, gather_sum

GROUP = 4
"""Columns of which only the largest is looked at first, when the top k are sought."""


@dataclass
class Workspace:
    """Large arrays that one step after another writes to; see `sparse_products.CHUNK` for what that spares.

    A step's pre-activations and gradients are overwritten by the next step's.
    """

    arrays: dict[str, Tensor] = field(default_factory=dict)

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """An array of this shape, of the type and device of `like`, that holds anything."""
        array = self.arrays.get(name)
        if array is None or array.shape != shape or array.dtype != like.dtype or array.device != like.device:
            array = self.arrays[name] = like.new_empty(shape)
        # Autograd keeps a gradient without copying it only if nothing else holds the same tensor: give it a view.
        return array.view(shape)


@dataclass(frozen=True)
class TopKRule:
    """What a step does besides what its tensors say."""

    k: int
    """Latents kept a token."""
    k_aux: int = 0
    """Dead latents kept a token for the auxiliary reconstruction."""
    rescale: bool = True
    """Whether latents are ranked by activation × decoder norm."""
    center: bool = True
    """Whether the decoder's bias is subtracted from the input."""


@dataclass(frozen=True, eq=False)
class TopKStep:
    """One batch through the SAE."""

    reconstruction: Tensor
    """(n, d_in)."""
    auxiliary: Tensor | None
    """(n, d_in), what the dead latents reconstruct, without bias; None where none is dead."""
    activations: Tensor
    """(n, k), the kept activations, as ranked; detached."""
    index: Tensor
    """(n, k), their latents, in no order."""
    pre_activations: Tensor
    """(n, d_sae), all of them, as ranked; detached."""


def topk_step(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    rule: TopKRule,
    dead: Tensor | None = None,
    workspace: Workspace | None = None,
) -> TopKStep:
    """`x` (n, d_in) through a TopK SAE: W_enc (d_in, d_sae), b_enc (d_sae,), W_dec (d_sae, d_in), b_dec (d_in,).

    `dead` are the indices of the dead latents, if the auxiliary reconstruction is wanted. It is fastest where `W_enc`
    is the transpose of a contiguous matrix. All arguments may require gradients.
    """
    return TopKStep(*_TopK.apply(x, W_enc, b_enc, W_dec, b_dec, dead, rule, workspace))


def pre_activations(x: Tensor, W_enc: Tensor, b_enc: Tensor, norms: Tensor | None, out: Tensor) -> Tensor:
    """`(x @ W_enc + b_enc) · norms` (n, d_sae), written to `out`."""
    if torch.is_autocast_enabled(x.device.type):
        out.copy_(torch.addmm(b_enc, x, W_enc))
    elif onednn_serves(x):
        # PyTorch gives float32 products to MKL, which uses half of what some processors can do. oneDNN does not.
        step = max(1, CHUNK // max(1, len(x) * x.element_size()))
        for start in range(0, len(b_enc), step):
            part = slice(start, start + step)
            block = torch.ops.mkldnn._linear_pointwise(x, W_enc.T[part], b_enc[part], "none", [], "")
            if norms is None:
                out[:, part] = block
            else:
                torch.mul(block, norms[part], out=out[:, part])
        return out
    else:
        torch.addmm(b_enc, x, W_enc, out=out)
    return out if norms is None else out.mul_(norms)


def onednn_serves(x: Tensor) -> bool:
    """Whether oneDNN multiplies matrices of this type and device in this build of PyTorch."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def top_latents(hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of `hidden` (n, width), in no order, and where they are: both (n, k).

    Columns are taken in groups. A group that holds one of the k largest has one of the k largest maxima, so only k
    groups are looked into; and the k largest maxima are found in the same way.
    """
    n, width = hidden.shape
    if width % GROUP or width < GROUP**2 * k:
        values, index = hidden.topk(k, dim=-1, sorted=False)
        return values, index
    groups = width // GROUP
    _, group = top_latents(hidden.view(n, GROUP, groups).amax(1), k)
    candidates = (group[:, :, None] + groups * torch.arange(GROUP, device=hidden.device)).flatten(1)
    values, which = hidden.gather(1, candidates).topk(k, dim=-1, sorted=False)
    return values, candidates.gather(1, which)


class _TopK(torch.autograd.Function):
    """The fields of `TopKStep`, with gradients computed from the kept latents alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        W_dec: Tensor,
        b_dec: Tensor,
        dead: Tensor | None,
        rule: TopKRule,
        workspace: Workspace | None,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
        centered = x - b_dec if rule.center else x
        norms = W_dec.norm(dim=-1) if rule.rescale else None
        hidden = (workspace or Workspace()).take("hidden", (len(x), len(b_enc)), x)
        pre_activations(centered, W_enc, b_enc, norms, hidden)
        with torch.autocast(x.device.type, enabled=False):
            kept, index = top_latents(hidden, rule.k)
            kept = kept.relu()
            code = kept if norms is None else kept / norms[index]
            bags = torch.arange(0, index.numel() + 1, rule.k, device=x.device)
            sums = gather_sum(W_dec, index.flatten(), code.flatten(), bags, torch.empty_like(x))
            auxiliary = chosen = pool = None
            if dead is not None:
                pool = hidden[:, dead]
                if rule.k_aux < len(dead):
                    best = pool.topk(rule.k_aux, dim=-1, sorted=False).indices
                    chosen = torch.zeros_like(pool).scatter_(-1, best, 1.0)
                    pool *= chosen
                if norms is not None:
                    pool /= norms[dead]
                auxiliary = pool @ W_dec[dead]
        ctx.rule, ctx.workspace = rule, workspace
        ctx.save_for_backward(centered, W_enc, W_dec, code, index, dead, pool, chosen)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(kept, index, hidden)
        return sums + b_dec, auxiliary, kept, index, hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_aux: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        centered, W_enc, W_dec, code, index, dead, pool, chosen = ctx.saved_tensors
        if grad is None:
            grad = torch.zeros_like(centered)
        grad = grad.contiguous()
        # A gradient that is already there may lie in the workspace, and this one is to be added to it.
        workspace = ctx.workspace if W_enc.grad is None and W_dec.grad is None else None
        workspace = workspace or Workspace()
        flat, shape = index.flatten(), W_dec.shape
        d_code = gather_dot(grad, W_dec, index) * (code > 0)

        order = flat.argsort(stable=True)
        tokens = order.div(index.shape[1], rounding_mode="floor")
        firings = torch.bincount(flat, minlength=len(W_dec))
        bags = torch.nn.functional.pad(firings.cumsum(0), (1, 0))
        d_dec = gather_sum(grad, tokens, code.flatten()[order], bags, workspace.take("W_dec", shape, W_dec))
        d_enc = gather_sum(centered, tokens, d_code.flatten()[order], bags, workspace.take("W_enc", shape, W_dec))
        d_bias = torch.zeros_like(W_dec[:, 0]).index_add_(0, flat, d_code.flatten())
        d_pool = None
        if grad_aux is not None and dead is not None:
            d_pool = grad_aux @ W_dec[dead].T
            if chosen is not None:
                d_pool *= chosen
            d_dec.index_add_(0, dead, pool.T @ grad_aux)
            d_enc.index_add_(0, dead, d_pool.T @ centered)
            d_bias.index_add_(0, dead, d_pool.sum(0))

        d_x = None
        if ctx.needs_input_grad[0]:
            every = torch.arange(0, len(flat) + 1, index.shape[1], device=grad.device)
            d_x = gather_sum(W_enc.T.contiguous(), flat, d_code.flatten(), every, torch.empty_like(grad))
            if d_pool is not None and dead is not None:
                d_x += d_pool @ W_enc.T[dead]
        # The bias enters twice, and its part through the encoder sums over tokens before it meets the encoder.
        d_b_dec = grad.sum(0)
        if ctx.rule.center:
            d_b_dec -= W_enc @ d_bias
        return d_x, d_enc.T, d_bias, d_dec, d_b_dec, None, None, None
