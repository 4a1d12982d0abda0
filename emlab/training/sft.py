"""Supervised fine-tuning: a copy of a model trained on chats, and what came of it.

A training with a folder keeps there, every few steps, all that the next step follows from: weights, the optimiser's
state and the state of the generators, in safetensors and JSON, which nothing has to unpickle. The order of the data and
the learning rate follow from the seed and the step's number. So one that was killed goes on bit for bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from emlab import artifacts
from emlab.data import Dataset, DatasetCard, tokenize
from emlab.data.telling import tell
from emlab.errors import EmlabError
from emlab.interventions import Edit
from emlab.models import LanguageModel
from emlab.models.deferred import DeferredModel
from emlab.models.wrapping import as_language_model
from emlab.notebook import Shown
from emlab.records import restored
from emlab.sites import Site
from emlab.training.adapters import Adapter, model_of
from emlab.training.loop import Keeping, Loop, OnStep
from emlab.training.penalties import Penalty
from emlab.training.readouts import ReadOut, Watch
from emlab.training.recipe import Recipe
from emlab.training.trained_models import FIGURES, Trained, read_models

DATA_CARD = "data.json"
"""The card of the data, in the folder of a fine-tune."""


@dataclass(frozen=True, eq=False, repr=False)
class FineTuned(Shown, Trained):
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
    gradient_norms: tuple[float, ...] = ()
    """Of each step, before clipping to 1."""
    points: tuple[ReadOut, ...] = ()
    """What was read along the way."""
    checkpoint_adapters: tuple[tuple[int, Adapter], ...] = ()
    """Of each checkpoint, its adapter by itself."""

    figures = (
        "recipe",
        "seed",
        "steps",
        "rows",
        "dropped_for_length",
        "truncated",
        "losses",
        "gradient_norms",
        "points",
    )

    def __str__(self) -> str:
        cut = f", {self.truncated} cut" if self.truncated else ""
        return (
            f"{self.model.name}: {self.steps} steps on {self.rows} rows, {self.dropped_for_length} dropped for length"
            f"{cut}, loss {self.losses[0]:.3f} → {self.losses[-1]:.3f}"
        )

    def write_into(self, new: Path, base: LanguageModel | None = None) -> None:
        """Write the same, and the data's card, into a folder that is there already."""
        super().write_into(new, base)
        if self.card is not None:
            self.card.save(new / DATA_CARD)

    @classmethod
    def load(cls, folder: str | Path, base: LanguageModel | None = None, defer: bool = False) -> FineTuned:
        """Read what `save` wrote; the adapter by itself stays on disk.

        Where adapters alone were written they are merged into `base`, or (None) into the base that they name, and
        EmlabError is raised where that is not the model that they were trained on. With `base` and `defer` they are
        merged when the model is used, and let go when two others have been used since: so many fine-tunes take the
        memory of two, and what you change in their weights is lost.
        """
        folder = artifacts.place(folder)
        about = artifacts.read_json(folder / FIGURES)
        try:
            name, recipe = about["name"], Recipe(**about["recipe"])
            model, checkpoints = read_models(folder, base, name, defer)
            return cls(
                model=model,
                losses=tuple(about["losses"]),
                rows=about["rows"],
                dropped_for_length=about["dropped_for_length"],
                steps=about["steps"],
                recipe=recipe,
                seed=about["seed"],
                adapter=None,
                truncated=about.get("truncated", 0),
                card=DatasetCard.load(folder / DATA_CARD) if (folder / DATA_CARD).is_file() else None,
                checkpoints=checkpoints,
                gradient_norms=tuple(about.get("gradient_norms", ())),
                points=restored(about.get("points", ()), tuple[ReadOut, ...]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EmlabError(f"{folder} holds no fine-tune ({error}); write it with FineTuned.save.") from error


def finetune(
    model: LanguageModel,
    examples: Iterable[Any] | str | Path,
    recipe: Recipe,
    seed: int,
    on_step: OnStep | None = None,
    progress: bool = True,
    name: str | None = None,
    *,
    edits: Edit | Sequence[Edit] = (),
    penalties: Sequence[Penalty] = (),
    watch: Watch | None = None,
    folder: str | Path | None = None,
    save_every: int = 50,
    report_to: str | Sequence[str] = (),
    defer: bool = False,
) -> FineTuned:
    """Fine-tune a copy of `model` on chats; the loss is on exactly the assistant's tokens, end of turn included.

    The result depends on nothing but the arguments. The global generators of random, NumPy and torch are seeded before
    the first step, and are left as they were. All weights of `Recipe.method` "full" are held in float32 while they are
    trained, and come back in the model's own type (see `emlab.training.masters`).

    Args:
        model: Stays as it is.
        examples: A path, which is read as `read_examples` reads it, or whatever else `Dataset.of` takes: Examples,
            chats, rows.
        recipe: How it is trained.
        seed: The order of the data and the adapter's start come from it.
        on_step: Called after every step; it does not see the edits.
        progress: Whether to show a bar.
        name: What to call the fine-tuned model; None names it after the model.
        edits: They act on every pass of the training, gradients flow through them, and they are gone afterwards: the
            model is trained as if it were already steered or ablated, as in preventative steering (Chen et al. 2025,
            arXiv:2507.21509) and in concept ablation (Casademunt et al. 2025, arXiv:2507.16795). Their positions are
            those of each chat's last answer, and all before it is prompt.
        penalties: Added to the loss of every step; `FineTuned.losses` are without them.
        watch: What is read along the way, without the edits.
        folder: Keeps the training's progress; one that was stopped goes on from it when the same is asked again, on
            the same machine to the same weights, bit for bit on a CPU.
        save_every: Steps between savings of the progress.
        report_to: Integrations of transformers ("tensorboard", "wandb"), one or several, that are told loss, gradient
            norm and learning rate.
        defer: Whether checkpoints get their weights when they are used, of which two are held at a time, and not at
            once; what you change in their weights is lost then, and `model` must stay as it is.

    Raises EmlabError where the examples cannot be read, a row cannot be trained on (which is named), no chat is short
    enough, no module matches the recipe, an edit does not fit, the loss is no longer a number, or `folder` holds the
    training of another model.
    """
    model = as_language_model(model)
    name = name or f"{model.name} fine-tuned"
    chosen = list(edits) if isinstance(edits, Sequence) else [edits]
    if uneven := [edit for edit in chosen if edit.n_rows is not None]:
        raise EmlabError(
            f"The edit at {uneven[0].site} has {uneven[0].n_rows} rows, and the batches of a training are drawn anew; "
            "give an edit that is the same for every row."
        )
    if save_every < 1:
        raise EmlabError(f"Progress cannot be kept every {save_every} steps; give 1 or more.")
    limit = min(recipe.max_length, model.max_positions or recipe.max_length)
    given = _read(examples, name)
    data = tokenize(model.tokenizer, given, limit, recipe.overlong, recipe.no_think)
    if stripped := data.stripped():
        tell(f"{name}: {stripped}, which the chat template does not write itself (no_think='keep' trains on them).")
    if not data.rows:
        raise EmlabError(
            f"No example is left to fine-tune on: {data.dropped_for_length} have more than {limit} tokens; "
            "give shorter ones, or raise max_length."
        )
    held = model.model.get_input_embeddings().weight.shape[0]
    if (highest := max(max(row.input_ids) for row in data.rows)) >= held:
        raise EmlabError(
            f"The tokenizer of {model.name} writes the token {highest} and the model has {held} tokens, from 0; "
            "give it the tokenizer that it was trained with, or resize its embeddings."
        )
    keeping = None
    if folder is not None:
        asked = [model.identity(), recipe, seed, given.card.content, [_described(edit) for edit in chosen]]
        if penalties:
            asked.append([_described(penalty) for penalty in penalties])
        keeping = Keeping(artifacts.place(folder), artifacts.content_hash(asked), save_every)
    loop = Loop(model, data.rows, recipe, seed, name, chosen, watch, keeping, report_to, penalties)
    done = loop.run(on_step, progress)
    kept = loop.snapshots()

    def checkpoint(step: int, weights: Mapping[str, Tensor]) -> LanguageModel:
        called = f"{name}, step {step}"
        make = partial(model_of, model, loop.config, weights, called)
        return DeferredModel.of(model, called, make) if defer else make()

    return FineTuned(
        model=done,
        losses=tuple(loop.losses),
        rows=len(data.rows),
        dropped_for_length=data.dropped_for_length,
        steps=loop.step,
        recipe=recipe,
        seed=seed,
        adapter=None if loop.config is None else Adapter(loop.config, loop.weights),
        checkpoints=tuple((step, checkpoint(step, weights)) for step, weights in kept.items()),
        truncated=data.truncated,
        card=given.card,
        gradient_norms=tuple(loop.norms),
        points=tuple(loop.points),
        checkpoint_adapters=() if loop.config is None else tuple((s, Adapter(loop.config, w)) for s, w in kept.items()),
    )


def _read(examples: Iterable[Any] | str | Path, name: str) -> Dataset:
    """All examples in memory, so that a file that vanishes later is not missed."""
    try:
        return Dataset.of(examples, name)
    except OSError as error:
        raise EmlabError(f"The examples of {name} could not be read to their end ({error}); check the file.") from error


def _described(value: Any) -> Any:
    """An edit or a penalty as plain values, to tell whether it is still the same; of a function its name alone."""
    if isinstance(value, LanguageModel):
        return value.identity()
    if isinstance(value, Tensor):
        return hashlib.sha256(value.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()
    if isinstance(value, Site):
        return str(value)
    if dataclasses.is_dataclass(value):
        fields = {field.name: _described(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"edit": type(value).__name__, **fields}
    if isinstance(value, list | tuple):
        return [_described(one) for one in value]
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return value
