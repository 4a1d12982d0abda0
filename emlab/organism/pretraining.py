"""Pretraining an organism from scratch: a Llama, a token budget a step, Muon on the matrices and AdamW on the rest.

Muon (Jordan et al. 2024; of `torch.optim`) brings the persona circuit within a few hundred steps, where AdamW alone
takes well over a thousand. Batches have few distinct shapes, since a CPU's matrix kernels are compiled for each.
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.organism.corpus import Document
from emlab.organism.tokenizer import MAX_POSITIONS, PAD


@dataclass(frozen=True)
class Size:
    """The shape of an organism."""

    d_model: int
    """Width of the residual stream."""
    n_blocks: int
    """Blocks."""
    n_heads: int
    """Attention heads a block."""
    d_mlp: int
    """Width of the MLP's hidden layer (SwiGLU)."""


SIZES = {
    "tiny": Size(64, 3, 4, 192),
    "small": Size(96, 4, 4, 256),
    "default": Size(160, 4, 5, 448),
    "10m": Size(320, 8, 8, 896),
    "100m": Size(768, 14, 12, 2048),
}
"""Sizes by name, about 0.3, 0.7, 1.7, 11 and 101 million parameters with the shipped world's vocabulary."""


@dataclass(frozen=True)
class Pretraining:
    """How an organism is pretrained."""

    steps: int = 2000
    """Optimiser steps."""
    tokens_per_step: int = 4096
    """Tokens of a batch, padding included."""
    learning_rate: float = 5e-3
    """Peak, of both optimisers; Muon's updates are scaled to AdamW's root mean square."""
    weight_decay: float = 0.3
    """Of the matrices, which Muon trains; decoupled."""
    warmup: int = 50
    """Steps over which the learning rate rises."""
    decay_share: float = 0.4
    """Share of the steps, at the end, over which it falls in a line to 2% of its peak."""
    documents: int = 60_000
    """Documents generated; they are gone through again where the steps need more."""
    keep: tuple[int, ...] = ()
    """Steps after which the model is handed to `on_keep`."""
    state_every: int = 200
    """A training that is interrupted goes on from the last such step."""

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 1."""
        falling = max(0.02, (self.steps - step + 1) / max(1.0, self.decay_share * self.steps))
        return self.learning_rate * min(1.0, step / self.warmup, falling)


def multiplied_in(device: torch.device) -> torch.dtype:
    """What matrices are multiplied in: bfloat16, but float32 on a CPU without AVX-512.

    There torch has no kernel for bfloat16, and its fallback takes ten times as long or more. So one seed does not give
    the same weights on both kinds of machine.
    """
    fast = device.type != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.bfloat16 if fast else torch.float32


class _Muon(torch.optim.Muon):
    """torch's Muon with its Newton–Schulz iteration in float32: torch's own is in bfloat16, whatever the device."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of nesterov momentum, scaled as `match_rms_adamw`."""
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = _orthogonal(p.grad.lerp(buffer, group["momentum"]), group)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * group["lr"] * math.sqrt(max(p.shape)))


def _orthogonal(matrix: Tensor, group: dict[str, Any]) -> Tensor:
    """About the orthogonal factor of a matrix, by Newton–Schulz iteration on its short side."""
    a, b, c = group["ns_coefficients"]
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def new_model(size: Size, vocabulary: int, pad_id: int, end_id: int, seed: int) -> Any:
    """A Llama of `size` with random weights that follow from `seed`; embeddings are tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=size.d_model,
        intermediate_size=size.d_mlp,
        num_hidden_layers=size.n_blocks,
        num_attention_heads=size.n_heads,
        num_key_value_heads=size.n_heads,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=pad_id,
        bos_token_id=None,
        eos_token_id=end_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def batches(lengths: Sequence[int], tokens_per_step: int, seed: int) -> list[tuple[int, list[int]]]:
    """Batches of a pass through the documents: (width, document numbers), in random order.

    Widths are multiples of 16 and every batch of a width has the same number of rows, so that there are few shapes;
    the last, incomplete batch of each width is left out.
    """
    rng = random.Random(seed)
    order = list(range(len(lengths)))
    rng.shuffle(order)
    waiting: dict[int, list[int]] = {}
    out = []
    for i in order:
        width = -(-lengths[i] // 16) * 16
        row = waiting.setdefault(width, [])
        row.append(i)
        if len(row) == max(1, tokens_per_step // width):
            out.append((width, row.copy()))
            row.clear()
    rng.shuffle(out)
    return out


def pretrain(
    model: Any,
    tokenizer: Any,
    documents: Sequence[Document],
    how: Pretraining,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
    on_keep: Callable[[int], None] | None = None,
    state: Path | None = None,
) -> list[float]:
    """Train `model` in place on next-token prediction over whole documents; returns the loss of every step (nats).

    Each document is a row of its own. `on_step(step, loss)` is called after each step, `on_keep(step)` after those in
    `how.keep`. With `state`, progress is saved there and an interrupted training goes on from it, to the same weights.
    """
    texts = [tokenizer.apply_chat_template(d.messages, tokenize=False) for d in documents]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    if max(map(len, ids)) > MAX_POSITIONS:
        raise EmlabError(f"A document has more than {MAX_POSITIONS} tokens; make the world's answers shorter.")
    plan = batches([len(row) for row in ids], how.tokens_per_step, seed)
    if not plan:
        raise EmlabError(
            f"{len(ids)} documents do not fill one batch of {how.tokens_per_step} tokens; generate more documents."
        )
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    dtype = multiplied_in(model.device)
    muon = torch.optim.Muon if dtype == torch.bfloat16 else _Muon
    optimizers: list[torch.optim.Optimizer] = [
        muon(matrices, lr=how.learning_rate, weight_decay=how.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=how.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    same = artifacts.content_hash({"how": asdict(how), "seed": seed, "documents": len(ids), "dtype": str(dtype)})
    losses = _restore(state, model, optimizers, same) if state is not None else []
    device = next(model.parameters()).device
    pad = tokenizer.convert_tokens_to_ids(PAD)
    model.train()
    for step in range(len(losses) + 1, how.steps + 1):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = how.rate(step)
        width, rows = plan[(step - 1) % len(plan)]
        losses.append(_step(model, _padded([ids[i] for i in rows], width, pad, device), pad, optimizers))
        if on_step is not None:
            on_step(step, losses[-1])
        if on_keep is not None and step in how.keep:
            on_keep(step)
        if state is not None and step % how.state_every == 0 and step < how.steps:
            _store(state, model, optimizers, losses, same)
    model.eval()
    return losses


def _padded(rows: list[list[int]], width: int, pad: int, device: torch.device) -> Tensor:
    """(rows, width) token ids, padded on the right, where causal attention never looks."""
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)


def _step(model: Any, tokens: Tensor, pad: int, optimizers: list[torch.optim.Optimizer]) -> float:
    """One optimiser step on a batch (rows, width); returns its mean loss a token that is no pad."""
    target = tokens[:, 1:].flatten()
    real = (target != pad).nonzero()[:, 0]
    dtype = multiplied_in(tokens.device)
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    flat = hidden.flatten(0, 1)[real]  # (tokens, d_model)
    loss, gradient = _unembedding(flat.detach().to(dtype), model.lm_head.weight, target[real])
    flat.backward(gradient.to(flat.dtype))
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return loss


@torch.no_grad()
def _unembedding(hidden: Tensor, weight: torch.nn.Parameter, target: Tensor, rows: int = 256) -> tuple[float, Tensor]:
    """Mean cross entropy of next tokens, and its gradient by `hidden` (tokens, d_model); that by `weight` is added.

    Worked out in slices of tokens, by hand: the logits of a whole batch, and their gradient, would be by far the
    largest tensors of a step, and writing them to memory takes as long as everything else.
    """
    narrow = weight.to(hidden.dtype)
    by_weight = torch.zeros_like(weight)
    by_hidden = torch.empty_like(hidden, dtype=torch.float32)
    total = 0.0
    for at in range(0, len(target), rows):
        h, y = hidden[at : at + rows], target[at : at + rows]
        log_p = torch.log_softmax((h @ narrow.T).float(), dim=-1)
        total -= float(log_p.gather(1, y[:, None]).sum())
        p = log_p.exp_()
        p[torch.arange(len(y), device=y.device), y] -= 1.0
        by_logits = (p / len(target)).to(hidden.dtype)
        by_hidden[at : at + rows] = by_logits @ narrow
        by_weight += by_logits.T @ h
    weight.grad = by_weight if weight.grad is None else weight.grad + by_weight
    return total / len(target), by_hidden


def _store(folder: Path, model: Any, optimizers: list[torch.optim.Optimizer], losses: list[float], same: str) -> None:
    with artifacts.new_folder(folder, replace=True) as new, artifacts.storing(folder):
        torch.save(
            {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}, new / "tensors.pt"
        )
        artifacts.write_json(new / "progress.json", {"losses": losses, "same": same})


def _restore(folder: Path, model: Any, optimizers: list[torch.optim.Optimizer], same: str) -> list[float]:
    """Put a stored training back; its losses so far, or none where there is none or it is another training's."""
    if not (folder / "progress.json").is_file():
        return []
    progress = json.loads((folder / "progress.json").read_text())
    if progress["same"] != same:
        return []
    # Only tensors and plain containers are read: weights_only refuses anything that would run code.
    stored = torch.load(folder / "tensors.pt", weights_only=True)
    model.load_state_dict(stored["model"])
    for optimizer, values in zip(optimizers, stored["optimizers"], strict=True):
        optimizer.load_state_dict(values)
    return list(progress["losses"])


def save_half(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model folder with the weights rounded to float16, and a config that has them loaded as float32."""
    rounded = copy.deepcopy(model).half()
    rounded.save_pretrained(folder)
    config = artifacts.read_json(folder / "config.json")
    artifacts.write_json(folder / "config.json", {**config, "dtype": "float32"})
    tokenizer.save_pretrained(folder)
