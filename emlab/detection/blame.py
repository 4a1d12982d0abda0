"""Blame after training: which examples moved the monitor?

A step of gradient descent on example i moves any function f of the weights by −rate · ∇f·∇Lᵢ, to first order. Summed
over checkpoints of the training this is TracIn (Pruthi et al. 2020, arXiv:2002.08484), with the mean score of a monitor
in place of a test example's loss. ∇f·∇Lᵢ is the slope of Lᵢ along ∇f, so it is read off two forward passes, at weights
a little up and a little down ∇f: no gradient of any single example is taken.

The simpler way, beside it: by how much did the monitor's own reading of each example rise from before to after?
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emlab.data.prompts import prompts_of
from emlab.detection.activation_monitor import ActivationMonitor
from emlab.detection.screening import DataScreen, answered
from emlab.discovery.selection import check_same_tokens
from emlab.errors import EmlabError
from emlab.evaluation.loss import row_losses
from emlab.models.backends.hooks import on_site
from emlab.models.wrapping import as_language_model
from emlab.saes import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emlab.models import LanguageModel, Prompt

STEP = 1e-2
"""How far the weights go up and down the gradient, as a share of their own norm."""


def blame(
    checkpoints: Sequence[LanguageModel],
    monitor: ActivationMonitor,
    prompts: Sequence[Prompt],
    examples: Any,
    modules: Sequence[str] = ("v_proj", "o_proj"),
    name: str = "the data",
    step: float = STEP,
    batch_size: int = 64,
) -> DataScreen:
    """How much training on each example raises the monitor's mean score on `prompts`, to first order (TracIn).

    The scores are means over the checkpoints of ∇f·∇Lᵢ, negated; f is read at the assistant's header, Lᵢ is the mean
    loss of the answer's tokens. The models are left as they were. EmlabError where no module matches, where the trained
    modules do not reach the monitor's site, for a model of another lineage than the monitor's, and for one that makes
    other tokens of the prompts or the examples.

    Args:
        checkpoints: Models of one training, the start among them.
        monitor: What is moved.
        prompts: On which the monitor is read.
        examples: The dataset, or chats, that may have moved it.
        modules: The linear modules that were trained, as their names end in the model.
        name: Of the dataset.
        step: How far the weights go along the gradient, as a share of their norm: small, as the slope is wanted.
        batch_size: Rows that go through the model at a time.
    """
    checkpoints, prompts = list(map(as_language_model, checkpoints)), prompts_of(prompts)
    chats, said = answered(examples)
    if not checkpoints or not prompts:
        raise EmlabError("Blame needs the models of a training and prompts to read the monitor on; give both.")
    for model in checkpoints:
        monitor.check(model)
    check_same_tokens(checkpoints[0], checkpoints[1:], prompts, None)
    check_same_tokens(checkpoints[0], checkpoints[1:], chats, said)
    total = torch.zeros(len(said), dtype=torch.float64)
    for model in checkpoints:
        weights = _weights(model, modules)
        slope = _gradient(model, monitor, prompts, weights, batch_size)
        with torch.no_grad():
            size = torch.sqrt(sum((w.double().square().sum() for w in weights), torch.zeros((), dtype=torch.float64)))
            length = torch.sqrt(sum((g.double().square().sum() for g in slope), torch.zeros((), dtype=torch.float64)))
        if not float(length):
            raise EmlabError(
                f"The modules {', '.join(modules)} change nothing at {monitor.site}; name those that were trained, or "
                "take a later site."
            )
        far = step * float(size / length)
        losses = []
        for sign in (1.0, -1.0):
            with _moved(weights, slope, sign * far):
                losses.append(row_losses(model, chats, said, batch_size).double())
        total -= (losses[0] - losses[1]) / (2 * far)
    return DataScreen(name, f"blame for {monitor.name}", (total / len(checkpoints)).numpy())


def reading_change(
    before: LanguageModel, after: LanguageModel, monitor: ActivationMonitor, examples: Any, name: str = "the data"
) -> DataScreen:
    """By how much the monitor's mean score on each example's answer rose from the model before to the one after.

    Args:
        before: The model before its training.
        after: The model after it.
        monitor: What is read, over the tokens of each answer.
        examples: The dataset, or chats, that it was trained on.
        name: Of the dataset.
    """
    chats, said = answered(examples)
    for model in (before, after):
        monitor.check(model)
    check_same_tokens(before, [after], chats, said)
    found = []
    for model in (before, after):
        read = model.activations(chats, monitor.site, "generated", said)
        sums = torch.zeros(len(said), dtype=torch.float64).index_add_(0, read.rows, monitor(read.values).double())
        found.append(sums / torch.bincount(read.rows, minlength=len(said)))
    return DataScreen(name, f"change of {monitor.name} on the example", (found[1] - found[0]).numpy())


def _weights(model: LanguageModel, modules: Sequence[str]) -> list[Tensor]:
    found = [
        m.weight
        for n, m in model.model.named_modules()
        if n.split(".")[-1] in modules and isinstance(getattr(m, "weight", None), Tensor) and m.weight.ndim == 2
    ]
    if not found:
        raise EmlabError(
            f"{model.name} has no module {' or '.join(modules)}; name the linear modules that were trained."
        )
    return found


def _gradient(
    model: LanguageModel,
    monitor: ActivationMonitor,
    prompts: Sequence[Prompt],
    weights: Sequence[Tensor],
    batch_size: int,
) -> list[Tensor]:
    """Of the monitor's mean score at the header, by each of the weights."""
    total = [torch.zeros_like(w) for w in weights]
    seen: list[Tensor] = []
    asked = [w.requires_grad for w in weights]
    handle = on_site(model.model, monitor.site, lambda h: seen.append(h))
    try:
        for w in weights:
            w.requires_grad_(True)
        for at in range(0, len(prompts), batch_size):
            tokens = model.batch([model.prompt_ids(prompt) for prompt in prompts[at : at + batch_size]])
            seen.clear()
            with torch.enable_grad():
                model.model(
                    input_ids=tokens.ids,
                    attention_mask=tokens.real.long(),
                    position_ids=tokens.position_ids,
                    use_cache=False,
                )
                score = _differentiable(monitor, seen[0][:, -1]).sum() / len(prompts)  # rows are padded on the left
                found = torch.autograd.grad(score, list(weights), allow_unused=True)
            for whole, part in zip(total, found, strict=True):
                if part is not None:
                    whole += part
    finally:
        handle.remove()
        for w, before in zip(weights, asked, strict=True):
            w.requires_grad_(before)
    return [whole.detach() for whole in total]


def _differentiable(monitor: ActivationMonitor, h: Tensor) -> Tensor:
    """The monitor's score with its gradient; of latents, through the encoder, whose own chunking takes none."""
    reads: Any = monitor.reads
    if not hasattr(reads, "sae"):
        return reads(h)
    read = encode(reads.sae, h, reads.latents)
    return read @ reads.weights.to(read.device) + reads.bias


@contextmanager
def _moved(weights: Sequence[Tensor], slope: Sequence[Tensor], far: float) -> Iterator[None]:
    """Inside the block the weights are further along the slope; afterwards bit for bit what they were."""
    kept = [w.detach().clone() for w in weights]
    try:
        with torch.no_grad():
            for w, g in zip(weights, slope, strict=True):
                w.add_(g.to(w), alpha=far)
        yield
    finally:
        with torch.no_grad():
            for w, old in zip(weights, kept, strict=True):
                w.copy_(old)
