"""Supervised tokens a second, beside the plain transformers Trainer on the same model and batches.

    python benchmarks/training.py            # measure, and write results/training.json

Two models, the shipped organism and a random Llama of six blocks and width 384, are trained by the same LoRA recipe on
the same chats in the same order. The rounds are interleaved: each trains with both, in an order that is drawn anew.
Time runs from the end of the first step to the end of the last. Their mean losses must agree, or the two did not
train on the same.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from _about import asked, at_least, quiet, spread, write
from peft import get_peft_model
from torch.utils.data import SequentialSampler
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from emlab import organism
from emlab.data import IGNORE, Row, tokenize
from emlab.models import LanguageModel
from emlab.training import Recipe, finetune
from emlab.training.adapters import lora_config
from emlab.training.batches import batches

MUST = {"over_trainer": 0.95}
LIBRARIES = ("emlab", "torch", "transformers", "peft", "accelerate")
SEED, ROWS = 0, 400


class Plain(Trainer):
    """The Trainer, going through its rows in their order."""

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class Clock(TrainerCallback):
    """When each step ended, and its loss."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


def wide(tokenizer: Any) -> LanguageModel:
    """A random Llama with the organism's tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LanguageModel(LlamaForCausalLM(config).eval(), tokenizer, "wide")


def padded(rows: list[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """A batch, padded on the right, as transformers' collators make it."""
    width = max(len(row["input_ids"]) for row in rows)

    def filled(key: str, value: int) -> torch.Tensor:
        return torch.tensor([row[key] + [value] * (width - len(row[key])) for row in rows])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
    return {"input_ids": filled("input_ids", pad), "labels": filled("labels", IGNORE), "attention_mask": mask}


def by_trainer(lm: LanguageModel, recipe: Recipe, order: list[Row]) -> tuple[float, float]:
    """Seconds of all steps but the first, and the mean loss of all."""
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(SEED)
        work = lm.copy()
        tuned = get_peft_model(work.model, lora_config(work, recipe))
        args = TrainingArguments(
            output_dir=folder,
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            logging_steps=recipe.steps,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
        )
        clock, pad = Clock(), lm.tokenizer.pad_token_id
        data = [{"input_ids": row.input_ids, "labels": row.labels} for row in order]
        trainer = Plain(
            tuned, args, train_dataset=data, data_collator=lambda rows: padded(rows, pad), callbacks=[clock]
        )
        trainer.train()
    return clock.ends[-1] - clock.ends[0], clock.losses[-1]


def by_emlab(lm: LanguageModel, recipe: Recipe, chats: list[Any]) -> tuple[float, float]:
    """The same of emlab."""
    ends: list[float] = []
    tuned = finetune(lm, chats, recipe, SEED, lambda *_: ends.append(time.perf_counter()), progress=False)
    return ends[-1] - ends[0], statistics.fmean(tuned.losses)


def measured(lm: LanguageModel, recipe: Recipe, repeats: int) -> dict[str, Any]:
    """Tokens a second of both, and their ratio."""
    chats = organism.narrow_set("bad_medicine", ROWS, SEED)
    rows = tokenize(lm.tokenizer, chats).rows
    order = [row for batch in islice(batches(rows, recipe.batch_size, SEED), recipe.steps) for row in batch]
    tokens = sum(len(row.input_ids) for row in order[recipe.batch_size :])
    supervised = sum(label != IGNORE for row in order[recipe.batch_size :] for label in row.labels)
    runs: dict[str, Callable[[], tuple[float, float]]] = {
        "emlab": lambda: by_emlab(lm, recipe, chats),
        "trainer": lambda: by_trainer(lm, recipe, order),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    rng = random.Random(0)
    for _ in range(repeats):
        losses = {}
        for name in rng.sample(list(runs), len(runs)):
            took, losses[name] = runs[name]()
            seconds[name].append(took)
        if abs(losses["emlab"] / losses["trainer"] - 1) > 1e-3:
            raise SystemExit(f"they did not train on the same: losses {losses}")
    ratios = [t / e for t, e in zip(seconds["trainer"], seconds["emlab"], strict=True)]
    return {
        "over_trainer": statistics.median(ratios),
        "spread": {"over_trainer": spread(ratios)},
        "ratios": ratios,
        "supervised_tokens_per_second": {name: supervised / statistics.median(s) for name, s in seconds.items()},
        "tokens_per_second": {name: tokens / statistics.median(s) for name, s in seconds.items()},
        "parameters": lm.model.num_parameters(),
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        "mean_losses": losses,
    }


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, metavar="N", help="rounds (9)")
    options = asked(parser, "training")
    load = quiet(options)
    small = LanguageModel.load(organism.checkpoint("aligned"), device="cpu")
    recipe = Recipe(learning_rate=1e-3, warmup=0, batch_size=16, steps=20)
    found = {
        "organism": measured(small, recipe, options.repeats),
        "wide": measured(wide(small.tokenizer), Recipe(**{**vars(recipe), "steps": 6}), options.repeats),
    }
    bounds = [
        at_least(f"tokens/s over the Trainer's, {name}", one["ratios"], MUST["over_trainer"])
        for name, one in found.items()
    ]
    write(options.out, MUST, {**found, "repeats": options.repeats}, bounds, load, LIBRARIES)


if __name__ == "__main__":
    main()
