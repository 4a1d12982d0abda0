"""A forward pass that goes on from a site: what lies below it is not computed again.

Rows that differ only in what is edited at a site, and after it, share all that the blocks below it compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from emlab.models.backends.hooks import caught
from emlab.sites import Site


@dataclass(frozen=True, eq=False)
class Below:
    """What the blocks up to a site compute of some rows."""

    site: Site
    """A resid_post."""
    h: Tensor
    """(batch, position, d_model): the activation there, before any edit at this site."""
    as_tuple: bool
    """Whether the model's blocks return tuples."""

    def rows(self, index: Tensor) -> Below:
        """Those of the rows `index`, int64 (n,)."""
        return Below(self.site, self.h[index], self.as_tuple)

    def columns(self, index: Tensor) -> Below:
        """Those of each row's columns `index`, int64 (batch, n)."""
        return Below(self.site, self.h.gather(1, index[..., None].expand(-1, -1, self.h.shape[-1])), self.as_tuple)


def shared_site(sites: Sequence[Site]) -> Site | None:
    """The last stream between two blocks that is before all of `sites`; None where that is the embeddings' output."""
    last = min((site.block if site.stream == "resid_post" else site.block - 1 for site in sites), default=-1)
    return Site("resid_post", last) if last >= 0 else None


def read_below(model: nn.Module, site: Site, run: Callable[[], object], stop: bool = True) -> Below:
    """What the blocks up to `site`, a resid_post, compute in the forward pass that `run` makes.

    With `stop` the pass ends there.
    """
    tuples: list[bool] = []

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        tuples.append(isinstance(output, tuple))

    handle = _blocks(model, site)[site.block].register_forward_hook(note)
    try:
        with caught(model, site, stop) as seen:
            run()
    finally:
        handle.remove()
    return Below(site, seen[0], tuples[0])


@contextmanager
def resumed(model: nn.Module, below: Below) -> Iterator[None]:
    """Inside the block, passes of `model` skip the blocks up to the site of `below`, and go on from what they computed.

    Hooks on the last skipped block still act; those on blocks before it act on nothing. The skipped blocks' key-value
    caches stay as they are, so nothing can be decoded after such a pass. Passes in other threads are not left alone.
    """
    given = (below.h,) if below.as_tuple else below.h
    skipped = _blocks(model, below.site)[: below.site.block + 1]
    try:
        for block in skipped:
            block.forward = lambda *_, **__: given
        yield
    finally:
        for block in skipped:
            block.__dict__.pop("forward", None)


def _blocks(model: nn.Module, site: Site) -> list[Any]:
    config: Any = model.config
    *path, _ = site.hook(config.model_type).module.split(".")
    blocks: Any = model.get_submodule(".".join(path))
    return list(blocks)
