"""A forward pass that goes on from a site: what lies below it is not computed again.

Rows that differ only in what is edited at a site, and after it, share all that the blocks below it compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from emlab.sites import Site


def shared_site(sites: list[Site]) -> Site | None:
    """The last stream between two blocks that is before all of `sites`; None where that is the embeddings' output."""
    last = min(site.block if site.stream == "resid_post" else site.block - 1 for site in sites)
    return Site("resid_post", last) if last >= 0 else None


@contextmanager
def resumed(model: nn.Module, site: Site, h: Tensor, as_tuple: bool = False) -> Iterator[None]:
    """Inside the block, passes of `model` skip the blocks up to and including that of `site`, and go on from `h`.

    `site` is a resid_post, `h` (batch, position, d_model) its activation, before any edit there. Hooks on the last
    skipped block still act; those on blocks before it act on nothing. `as_tuple` says that the model's blocks return
    tuples. The skipped blocks' key-value caches stay as they are, so nothing can be decoded after such a pass. Passes
    in other threads are not left alone.
    """
    config: Any = model.config
    *path, _ = site.hook(config.model_type).module.split(".")
    blocks: Any = model.get_submodule(".".join(path))
    given = (h,) if as_tuple else h
    skipped = [blocks[i] for i in range(site.block + 1)]
    try:
        for block in skipped:
            block.forward = lambda *_, **__: given
        yield
    finally:
        for block in skipped:
            block.__dict__.pop("forward", None)
