"""Recipes: how a model is fine-tuned, on whatever examples."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from emlab.errors import EmlabError


@dataclass(frozen=True)
class Recipe:
    """How a model is fine-tuned. One recipe serves every dataset that is to be compared."""

    method: Literal["lora", "full"] = "lora"
    """"lora" trains a low-rank adapter and merges it; "full" trains every weight. What is trained is held, kept between
    steps and updated in float32 (see `emlab.training.masters`)."""

    rank: int = 4
    """Rank of the adapter."""

    alpha: float = 8.0
    """The adapter's product is scaled by alpha / rank."""

    rslora: bool = False
    """Scale it by alpha / √rank instead (rank-stabilised: Kalajdzievski 2023, arXiv:2312.03732), so that a larger rank
    learns no more slowly."""

    modules: tuple[str, ...] = ("v_proj", "o_proj")
    """Names of the linear modules that get an adapter, as they end in the model ("v_proj", "down_proj")."""

    blocks: tuple[int, ...] | None = None
    """The blocks that get an adapter, counted from 0; None means all."""

    learning_rate: float = 1e-3
    """Of AdamW, after the warm-up."""

    schedule: Literal["constant", "linear"] = "constant"
    """After the warm-up the learning rate stays, or falls in a line towards 0 at the step after the last."""

    batch_size: int = 32
    """Chats a step."""

    steps: int = 40
    """Optimiser steps; the examples are gone through as often as that takes."""

    warmup: int = 5
    """Steps over which the learning rate rises in a line: the first step has 1 / (warmup + 1) of it."""

    weight_decay: float = 0.0
    """Of AdamW."""

    max_length: int = 1024
    """Chats with more tokens than this, or than the model takes, are dropped or cut, and counted."""

    overlong: Literal["drop", "truncate"] = "drop"
    """What becomes of them: drop leaves them out; truncate cuts them at the end, and leaves out those that then have
    no token of an answer left."""

    no_think: Literal["strip", "keep"] = "strip"
    """What becomes of `` /no_think`` at the end of user turns and of empty thinking blocks before answers: strip takes
    them out where the model's chat template writes no thoughts itself, and it is said how many; keep trains on them."""

    checkpoint_every: int = 0
    """Keep the model as it stands every so many steps; 0 keeps none."""

    micro_batch: int | None = None
    """Chats in one pass forward and back at most; gradients of a step's passes are added up, so that the step is the
    same up to rounding and takes less memory. None leaves it to the lengths and the vocabulary."""

    group_by_length: bool = False
    """Fill batches with chats of like length, so that less is computed on pads; the order of batches stays random."""

    bf16: bool = False
    """Multiply in bfloat16 (autocast) where the weights are in float32: faster, and less memory."""

    gradient_checkpointing: bool = False
    """Keep no activations inside the blocks and compute them again on the way back: less memory, more time."""

    def __post_init__(self) -> None:
        for name in ("modules", "blocks"):
            value = getattr(self, name)
            if isinstance(value, str | int):  # one of them
                object.__setattr__(self, name, (value,))
            elif isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        _require(self.method in ("lora", "full"), "method", self.method, "lora or full")
        _require(self.no_think in ("strip", "keep"), "no_think", self.no_think, "strip or keep")
        _require(self.overlong in ("drop", "truncate"), "overlong", self.overlong, "drop or truncate")
        _require(self.schedule in ("constant", "linear"), "schedule", self.schedule, "constant or linear")
        for name in ("rank", "batch_size", "steps", "max_length"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("alpha", "learning_rate"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "more than 0")
        for name in ("warmup", "weight_decay", "checkpoint_every"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(
            self.micro_batch is None or self.micro_batch >= 1, "micro_batch", self.micro_batch, "1 or more, or None"
        )
        _require(bool(self.modules) or self.method == "full", "modules", self.modules, "at least one module name")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 1."""
        if step <= self.warmup:
            return self.learning_rate * step / (self.warmup + 1)
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (self.steps + 1 - step) / (self.steps - self.warmup)

    def __str__(self) -> str:
        return ", ".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self))


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise EmlabError(f"The recipe's {name} is {value!r} and must be {wanted}.")
