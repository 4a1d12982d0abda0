"""Counting the passes that models really make: what a method costs, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from emlab.models import LanguageModel


@dataclass(frozen=True)
class Passes:
    """What went through models."""

    forwards: int = 0
    """Rows (texts), read whole or up to the site that was asked for; every token that is written is one more."""
    backwards: int = 0
    """Rows that gradients were taken of."""
    tokens: int = 0
    """Tokens that were read forward, pads not counted."""

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forwards + other.forwards, self.backwards + other.backwards, self.tokens + other.tokens)

    def __str__(self) -> str:
        return f"{self.forwards:,} rows forward ({self.tokens:,} tokens), {self.backwards:,} backward"


class PassCounter:
    """What went through the models so far; see `counted`."""

    def __init__(self) -> None:
        self.passes = Passes()

    def _before(self, _: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = named.get("input_ids", arguments[0] if arguments else None)
        ids: Tensor = named["inputs_embeds"][..., 0] if given is None else given
        mask = named.get("attention_mask")
        # With a cache the mask is of the whole text. One of (batch, 1, position, position) tells no pads apart.
        real = None if mask is None or mask.ndim != 2 else mask[:, -ids.shape[1] :]
        tokens = ids.numel() if real is None else int(real.sum())
        self.passes += Passes(len(ids), 0, tokens)

    def _after(self, _: Any, __: Any, output: Any) -> None:
        logits = output.logits if hasattr(output, "logits") else output[0]
        if torch.is_grad_enabled() and logits.requires_grad:
            logits.register_hook(self._backward)

    def _backward(self, gradient: Tensor) -> None:
        self.passes += Passes(0, len(gradient), 0)


@contextmanager
def counted(models: Sequence[LanguageModel]) -> Iterator[PassCounter]:
    """Count every pass through the models inside the block, whoever makes it; a model named twice is counted once.

    Backward passes are counted where they go through the logits.
    """
    counter, handles = PassCounter(), []
    try:
        for module in {id(lm.model): lm.model for lm in models}.values():
            handles.append(module.register_forward_pre_hook(counter._before, with_kwargs=True))
            handles.append(module.register_forward_hook(counter._after))
        yield counter
    finally:
        for handle in handles:
            handle.remove()
