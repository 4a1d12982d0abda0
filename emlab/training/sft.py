"""Supervised fine-tuning: a loop that can be read from top to bottom."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emlab import artifacts
from emlab.data import IGNORE, Dataset, DatasetCard, Row, tokenize
from emlab.errors import EmlabError
from emlab.interventions import Tokens
from emlab.models import LanguageModel
from emlab.training.adapters import Adapter, lora_config, trained_weights, with_adapter
from emlab.training.recipe import Recipe

DATA_CARD = "data.json"
"""The card of the data, in the folder of a fine-tune."""

_LOGITS_AT_ONCE = 2**27
"""Logits held in one pass at most: half a gigabyte in float32, and about as much again for their gradient."""

OnStep = Callable[[int, LanguageModel], bool | None]
"""Called after every step with its number, counted from 1, and the model in training; True ends the training."""


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A fine-tuned model and how it came about."""

    model: LanguageModel
    """The model, its adapter merged."""
    losses: tuple[float, ...]
    """The mean loss a supervised token, of each step's batch before the step."""
    rows: int
    """How many chats it was trained on."""
    dropped_for_length: int
    """How many chats were left out for their length."""
    steps: int
    """How many steps were taken."""
    recipe: Recipe
    seed: int
    adapter: Adapter | None
    """The adapter by itself; None where all weights were trained."""
    checkpoints: tuple[tuple[int, LanguageModel], ...] = ()
    """The model after some of the steps, where the recipe asks for it."""
    truncated: int = 0
    """How many of the chats were cut for their length."""
    card: DatasetCard | None = None
    """Where the chats came from, and what was done to them."""

    def __str__(self) -> str:
        cut = f", {self.truncated} cut" if self.truncated else ""
        return (
            f"{self.model.name}: {self.steps} steps on {self.rows} rows, {self.dropped_for_length} dropped for length"
            f"{cut}, loss {self.losses[0]:.3f} → {self.losses[-1]:.3f}"
        )

    def save(self, folder: str | Path) -> Path:
        """Write the merged model, the adapter in ``adapter/``, figures, and the data's card; whole or not at all."""
        with artifacts.new_folder(folder) as new:
            self.write_into(new)
        return Path(folder)

    def write_into(self, new: Path) -> None:
        """Write the same into a folder that is there already."""
        about = {
            "name": self.model.name,
            "recipe": dataclasses.asdict(self.recipe),
            "seed": self.seed,
            "steps": self.steps,
            "rows": self.rows,
            "dropped_for_length": self.dropped_for_length,
            "truncated": self.truncated,
            "losses": self.losses,
        }
        self.model.write_into(new)
        artifacts.write_json(new / "training.json", about)
        if self.card is not None:
            self.card.save(new / DATA_CARD)
        if self.adapter is not None:
            (new / "adapter").mkdir()
            self.adapter.save(new / "adapter")
        for step, checkpoint in self.checkpoints:
            (new / "checkpoints" / f"step_{step:05d}").mkdir(parents=True)
            checkpoint.write_into(new / "checkpoints" / f"step_{step:05d}")

    @classmethod
    def load(cls, folder: str | Path) -> FineTuned:
        """Read what `save` wrote; the adapter by itself stays on disk."""
        folder = Path(folder)
        about = artifacts.read_json(folder / "training.json")
        try:
            name, recipe = about["name"], Recipe(**about["recipe"])
            steps = sorted((folder / "checkpoints").glob("step_*"))
            return cls(
                model=LanguageModel.load(folder, name=name),
                losses=tuple(about["losses"]),
                rows=about["rows"],
                dropped_for_length=about["dropped_for_length"],
                steps=about["steps"],
                recipe=recipe,
                seed=about["seed"],
                adapter=None,
                truncated=about.get("truncated", 0),
                card=DatasetCard.load(folder / DATA_CARD) if (folder / DATA_CARD).is_file() else None,
                checkpoints=tuple(
                    (int(at.name[5:]), LanguageModel.load(at, name=f"{name}, step {int(at.name[5:])}")) for at in steps
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EmlabError(f"{folder} holds no fine-tune ({error}); write it with FineTuned.save.") from error


def finetune(
    model: LanguageModel,
    examples: Iterable[Any],
    recipe: Recipe,
    seed: int,
    on_step: OnStep | None = None,
    progress: bool = True,
    name: str | None = None,
) -> FineTuned:
    """Fine-tune a copy of `model` on chats; the loss is on exactly the assistant's tokens, end of turn included.

    `examples` are Examples or lists of turns. The result depends on nothing but the arguments: the order of the data
    and the adapter's start come from `seed`. Raises EmlabError where no chat is short enough, where no module matches
    the recipe, or where the loss is no longer a number.
    """
    name = name or f"{model.name} fine-tuned"
    limit = min(recipe.max_length, model.max_positions or recipe.max_length)
    given = Dataset.of(examples, name)
    data = tokenize(model.tokenizer, given, limit, recipe.overlong)
    if not data.rows:
        raise EmlabError(
            f"No example is left to fine-tune on: {data.dropped_for_length} have more than {limit} tokens; "
            "give shorter ones, or raise max_length."
        )
    losses: list[float] = []
    checkpoints: list[tuple[int, LanguageModel]] = []
    with _seeded(seed):
        work = model.merged(name)
        tuned = (
            with_adapter(work, lora_config(work, recipe))
            if recipe.method == "lora"
            else work.model.requires_grad_(True)
        )
        weights = [p for p in tuned.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        batches = _batches(data.rows, recipe.batch_size, seed)
        for step in _counted(recipe.steps, name, progress):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step)
            work.model.train()
            loss = _backward(work, next(batches))
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            work.model.eval()
            losses.append(loss)
            if not math.isfinite(losses[-1]):
                raise EmlabError(f"The loss of {name} is {losses[-1]} at step {step}; lower the learning rate.")
            if recipe.checkpoint_every and step % recipe.checkpoint_every == 0:
                checkpoints.append((step, _frozen(tuned, work, f"{name}, step {step}")))
            if on_step is not None and on_step(step, work):
                break
        adapter = Adapter(tuned.peft_config["default"], trained_weights(tuned)) if recipe.method == "lora" else None
        done = _merged(tuned, work, name)
    return FineTuned(
        done,
        tuple(losses),
        len(data.rows),
        data.dropped_for_length,
        len(losses),
        recipe,
        seed,
        adapter,
        tuple(checkpoints),
        data.truncated,
        given.card,
    )


def _backward(model: LanguageModel, rows: Sequence[Row]) -> float:
    """Add the gradient of the mean loss over the labelled tokens of `rows`, and return that loss."""
    labelled = sum(label != IGNORE for row in rows for label in row.labels)
    total = 0.0
    for part in _passes(rows, model.model.config.get_text_config().vocab_size):
        loss = assistant_loss(model, part, labelled)
        loss.backward()
        total += float(loss.detach())
    return total


def _passes(rows: Sequence[Row], vocabulary: int) -> Iterator[list[Row]]:
    """A batch in as many passes as rows of unlike length and a large vocabulary ask for; each token weighs the same."""
    part: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.input_ids)):
        length = len(row.input_ids)
        padded = part and length > 1.3 * len(part[0].input_ids) + 16
        if part and (padded or (len(part) + 1) * length * vocabulary > _LOGITS_AT_ONCE):
            yield part
            part = []
        part.append(row)
    yield part


def assistant_loss(model: LanguageModel, rows: Sequence[Row], labelled: int) -> Tensor:
    """Summed cross entropy over the labelled tokens of `rows`, as one right-padded batch, divided by `labelled`."""
    pad = model.tokenizer.pad_token_id or 0
    tokens = Tokens.pad([row.input_ids for row in rows], None, pad, side="right").to(model.device)
    labels = Tokens.pad([row.labels for row in rows], None, IGNORE, side="right").to(model.device).ids
    # Logits are made from the column that predicts the first labelled one on.
    first = int((labels != IGNORE).any(0).nonzero()[0]) - 1
    # Pads stand on the right, where causal attention never looks: a mask would change nothing and cost time.
    logits = model.model(input_ids=tokens.ids, use_cache=False, logits_to_keep=labels.shape[1] - first).logits
    # Shifting the small labels and not the large logits saves a copy of these in each direction.
    target = torch.nn.functional.pad(labels[:, first + 1 :], (0, 1), value=IGNORE)
    flat = logits.flatten(0, 1).float()
    return torch.nn.functional.cross_entropy(flat, target.flatten(), ignore_index=IGNORE, reduction="sum") / labelled


def _batches(rows: Sequence[Row], size: int, seed: int) -> Iterator[list[Row]]:
    """Endless batches: a fresh order for every pass through the rows, none left out."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += torch.randperm(len(rows), generator=generator).tolist()
        yield [rows[i] for i in waiting[:size]]
        waiting = waiting[size:]


def _merged(tuned: Any, work: LanguageModel, name: str) -> LanguageModel:
    plain = tuned.merge_and_unload() if tuned is not work.model else tuned
    return dataclasses.replace(work, model=plain.eval().requires_grad_(False), name=name)


def _frozen(tuned: Any, work: LanguageModel, name: str) -> LanguageModel:
    """A merged copy of the model as it stands, while training goes on."""
    again = copy.deepcopy(tuned)
    inner = again if tuned is work.model else again.get_base_model()
    return _merged(again, dataclasses.replace(work, model=inner), name)


def _counted(steps: int, name: str, progress: bool) -> Iterator[int]:
    if not progress:
        yield from range(1, steps + 1)
        return
    from tqdm import tqdm

    yield from tqdm(range(1, steps + 1), desc=name, unit="step", leave=False, file=sys.stderr)


class _seeded:
    """Inside, torch's global generator (peft draws from it) starts at `seed`; afterwards it is as it was."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._fork = torch.random.fork_rng()

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self.seed)

    def __exit__(self, *exception: Any) -> None:
        self._fork.__exit__(*exception)
