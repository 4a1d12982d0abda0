"""Whether a model has a site, how wide it is there, and what an edit is given of what its module holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.interventions import Edit
from emlab.sites import Site

Act = Callable[[Tensor], Tensor | None]
"""From a site's activation (batch, position, width) to what takes its place, or None to leave it."""


def check_site(site: Site, config: Any) -> None:
    """EmlabError where a model with this Hugging Face config has no such site."""
    text, kind = config.get_text_config(), config.model_type
    blocks, heads = text.num_hidden_layers, text.num_attention_heads
    if site.block >= blocks:
        raise EmlabError(
            f"The model of type {kind} has no site {site}: its {blocks} blocks are counted from 0 to {blocks - 1}."
        )
    if site.head is not None and site.head >= heads:
        raise EmlabError(
            f"The model of type {kind} has no site {site}: a block's {heads} heads are counted from 0 to {heads - 1}."
        )
    if site.stream == "resid_mid" and getattr(text, "use_parallel_residual", False):
        raise EmlabError(
            f"The model of type {kind} has no site {site}: attention and MLP of a block read the same stream, in "
            "parallel, so that there is none between them; take resid_pre or resid_post."
        )


def width_of(site: Site, config: Any) -> int:
    """How wide a site is: d_model, or d_head for each head of the stream z."""
    text = config.get_text_config()
    if site.stream != "z":
        return text.hidden_size
    heads = text.num_attention_heads
    d_head = getattr(text, "v_head_dim", None) or getattr(text, "head_dim", None) or text.hidden_size // heads
    return d_head if site.head is not None else heads * d_head


def check_edits(edits: Iterable[Edit], config: Any) -> None:
    """EmlabError where an edit does not fit a model with this Hugging Face config: no such site, or another width."""
    for edit in edits:
        check_site(edit.site, config)
        if edit.width not in (None, width := width_of(edit.site, config)):
            raise EmlabError(
                f"The edit at {edit.site} has vectors of width {edit.width} in a stream of width {width}; use a "
                "direction found in a model of the same width."
            )


def acting(act: Act, site: Site, config: Any) -> Act:
    """`act` as a function of what a library holds at the site.

    At z that is all heads, in three dimensions or in four. At resid_mid it is a tensor that is read twice, by the MLP's
    norm and by the skip connection, and a hook's result reaches the first reader only (in TransformerLens too): so what
    takes its place is written into the tensor itself.
    """
    if site.stream == "z":
        heads = config.get_text_config().num_attention_heads
        return lambda h: _flat(of_head(act, site.head, heads), h)
    return partial(_written_over, act) if site.stream == "resid_mid" else act


def of_head(act: Act, head: int | None, heads: int) -> Act:
    """`act` on one head, (batch, position, d_head), of the heads side by side; None for all of them."""
    return act if head is None else partial(_one_head, act, head, heads)


def _one_head(act: Act, head: int, heads: int, h: Tensor) -> Tensor | None:
    d_head = h.shape[-1] // heads
    first, last = head * d_head, (head + 1) * d_head
    new = act(h[..., first:last])
    return None if new is None else torch.cat([h[..., :first], new, h[..., last:]], dim=-1)


def _flat(act: Act, h: Tensor) -> Tensor | None:
    new = act(h.flatten(2))
    return None if new is None else new.view(h.shape)


def _written_over(act: Act, h: Tensor) -> Tensor | None:
    own = h.clone()  # so that nobody's copy of the activation, nor autograd's, is written over
    new = act(own)
    return None if new is None else h if new is own else h.copy_(new)
