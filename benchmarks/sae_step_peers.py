"""One library's TopK training in a process of its own, for `sae_step.py`, which starts it with that library's Python.

It reads orders, one JSON line each, and answers each with one line: {"steps": n} trains n steps and gives the seconds
and loss of each; {"explained_variance": true} gives that of the held-out activations; {"begin": seed, "learning_rate":
rate} begins anew. Each library takes the step that its trainer takes: forward, backward, its clipping and projections,
optimizer, scheduler, dead latents.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import cycle
from typing import Any

import torch

Trainer = tuple[Callable[[torch.Tensor], float], Callable[[torch.Tensor], torch.Tensor]]
"""A training step on a batch (n, d_in), which returns the loss, and the reconstruction of a batch."""


def saelens(setting: dict[str, Any], fast: bool = False) -> Trainer:
    """SAELens' trainer, of its `topk` or of emlab's `fast_topk`."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    options = {
        "d_in": setting["d_in"],
        "d_sae": setting["d_sae"],
        "k": setting["k"],
        "dtype": setting.get("dtype", "float32"),
    }
    cfg = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=setting["batch"],
        lr=setting["learning_rate"],
        lr_end=setting["learning_rate"],
    )
    if fast:
        from emlab.saes.fast_topk import FastTopKTrainingSAE, FastTopKTrainingSAEConfig, fast_trainer

        sae = FastTopKTrainingSAE(FastTopKTrainingSAEConfig(**options))
        trainer = fast_trainer(sae, cfg, iter(()))
    else:
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**options))
        trainer = SAETrainer(cfg, sae, iter(()))

    def step(batch: torch.Tensor) -> float:
        output = trainer.step(batch)
        trainer.n_training_steps += 1
        return output.loss.item()

    return step, sae


def sparsify(setting: dict[str, Any], optimizer: str) -> Trainer:
    """sparsify's `SparseCoder` and what its `Trainer` does with it, whose own loop needs a language model."""
    from sparsify import SparseCoder, SparseCoderConfig
    from sparsify.sign_sgd import SignSGD

    coder = SparseCoder(setting["d_in"], SparseCoderConfig(num_latents=setting["d_sae"], k=setting["k"]))
    chosen: Any
    if optimizer == "adam":
        chosen = torch.optim.Adam(coder.parameters(), lr=setting["learning_rate"])
    else:
        from schedulefree import ScheduleFreeWrapper

        rate = 5e-3 / (setting["d_sae"] / 2**14) ** 0.5
        chosen = ScheduleFreeWrapper(SignSGD(coder.parameters(), lr=rate), momentum=0.95)
        chosen.train()
    since_fired = torch.zeros(setting["d_sae"], dtype=torch.long)
    begun = False

    def step(batch: torch.Tensor) -> float:
        nonlocal begun
        if not begun:
            coder.b_dec.data = batch.mean(0)
            begun = True
        coder.set_decoder_norm_to_unit_norm()
        variance = (batch - batch.mean(0)).pow(2).sum()
        output = coder(batch, dead_mask=None, total_variance=variance)
        fired = torch.zeros_like(since_fired, dtype=torch.bool)
        fired[output.latent_indices.flatten()] = True
        output.fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        chosen.step()
        chosen.zero_grad()
        with torch.no_grad():
            since_fired.add_(len(batch))
            since_fired[fired] = 0
        return output.fvu.item()

    def reconstruct(batch: torch.Tensor) -> torch.Tensor:
        if optimizer == "signum":  # the weights that a schedule-free optimizer gives are averages
            chosen.eval()
        rebuilt = coder(batch).sae_out
        if optimizer == "signum":
            chosen.train()
        return rebuilt

    return step, reconstruct


def dictionary_learning(setting: dict[str, Any]) -> Trainer:
    """dictionary_learning's `TopKTrainer`."""
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(
        steps=10**9,
        activation_dim=setting["d_in"],
        dict_size=setting["d_sae"],
        k=setting["k"],
        layer=0,
        lm_name="none",
        lr=setting["learning_rate"],
        warmup_steps=0,
        device="cpu",
    )
    steps = iter(range(10**9))
    return (lambda batch: trainer.update(next(steps), batch)), trainer.ae


def encode(setting: dict[str, Any], onednn: bool = False) -> Trainer:
    """Only the dense encode product, into memory that is there already."""
    weight = torch.randn(setting["d_in"], setting["d_sae"])
    out = torch.empty(setting["batch"], setting["d_sae"])
    bias = torch.zeros(setting["d_sae"])

    def step(batch: torch.Tensor) -> float:
        if onednn:
            torch.ops.mkldnn._linear_pointwise(batch, weight.T, bias, "none", [], "")
        else:
            torch.mm(batch, weight, out=out)
        return 0.0

    return step, lambda batch: batch


SUBJECTS: dict[str, Callable[[dict[str, Any]], Trainer]] = {
    "emlab": lambda setting: saelens(setting, fast=True),
    "saelens": saelens,
    "sparsify": lambda setting: sparsify(setting, "adam"),
    "sparsify_signum": lambda setting: sparsify(setting, "signum"),
    "dictionary_learning": dictionary_learning,
    "encode": encode,
    "encode_onednn": lambda setting: encode(setting, onednn=True),
}


def main() -> None:
    """`python sae_step_peers.py SUBJECT DATA THREADS`."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the libraries print
    subject, data, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    held = torch.load(data, weights_only=True)
    held_out = held["held_out"]

    def begin(seed: int, **changed: Any) -> tuple[Trainer, Any]:
        torch.manual_seed(seed)
        order = torch.randperm(len(held["train"]), generator=torch.Generator().manual_seed(seed)).tolist()
        return SUBJECTS[subject]({**held["setting"], **changed}), cycle([held["train"][i] for i in order])

    (step, reconstruct), batches = begin(0)
    answers.write(json.dumps({"ready": torch.__version__}) + "\n")
    for line in sys.stdin:
        order = json.loads(line)
        if "begin" in order:
            (step, reconstruct), batches = begin(order["begin"], learning_rate=order["learning_rate"])
            answers.write(json.dumps({"begun": order["begin"]}) + "\n")
        elif "steps" in order:
            seconds, losses = [], []
            for _ in range(order["steps"]):
                batch = next(batches)
                begun = time.perf_counter()
                losses.append(step(batch))
                seconds.append(time.perf_counter() - begun)
            answers.write(json.dumps({"seconds": seconds, "losses": losses}) + "\n")
        else:
            with torch.no_grad():
                error = (held_out - reconstruct(held_out)).square().sum()
                about_mean = (held_out - held_out.mean(0)).square().sum()
            answers.write(json.dumps({"explained_variance": 1 - float(error / about_mean)}) + "\n")


if __name__ == "__main__":
    main()
