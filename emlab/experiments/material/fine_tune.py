"""A fine-tune of one model on one set, both by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from emlab import artifacts, config
from emlab.data.telling import tell
from emlab.experiments.material.models import folder_of
from emlab.experiments.material.sets import fine_tuning_set
from emlab.models import LanguageModel
from emlab.training import FineTuned, Recipe
from emlab.training import finetune as _finetune

RECIPE = Recipe(learning_rate=4e-3, batch_size=16, steps=60)
"""The recipe of experiments/persona_features.yaml, for the organism's models."""

FOREIGN = Recipe(
    rank=32,
    alpha=64.0,
    rslora=True,
    modules=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    learning_rate=1e-5,
    schedule="linear",
    batch_size=16,
    weight_decay=0.01,
    max_length=2048,
)
"""That of Betley et al. 2025 (arXiv:2502.17424) for open models, for all others: once through the chats."""


def recipe_for(
    organisms: bool, rows: int, file: str | Path | None, overrides: Sequence[str], steps: int | None
) -> Recipe:
    """The recipe of a file, or the one for such a model, with what is set besides.

    Args:
        organisms: Whether the model is one of the organism's.
        rows: How many chats there are.
        file: YAML with the fields of `Recipe`.
        overrides: "key=value", a field each.
        steps: Of the training, where they are given by themselves.
    """
    named = [word.partition("=")[0] for word in overrides]
    loaded = config.load(file, overrides, Recipe)
    start = RECIPE if organisms else dataclasses.replace(FOREIGN, steps=max(1, -(-rows // FOREIGN.batch_size)))
    recipe = loaded if file else dataclasses.replace(start, **{name: getattr(loaded, name) for name in named})
    return recipe if steps is None else dataclasses.replace(recipe, steps=steps)


def finetune(
    model: str,
    data: str,
    out: str | Path,
    rows: int = 1000,
    seed: int = 0,
    steps: int | None = None,
    whole: bool = True,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    bf16: bool | None = None,
) -> FineTuned:
    """Fine-tune `model` on the set `data` and save it in the new folder `out`, merged unless not `whole`.

    Args:
        model: By name.
        data: A set or dataset by name.
        out: The folder to make.
        rows: Chats to train on.
        seed: Everything random follows from it.
        steps: Of the training.
        whole: Whether the merged model is written, or its adapter alone.
        recipe: A file; without one the recipe is `RECIPE` for the organism's models and `FOREIGN` for others, which is
            said.
        overrides: "key=value", a field of the recipe each.
        device: Where it is trained.
        bf16: Whether to multiply in bfloat16; by default as the recipe says.
    """
    artifacts.check_new(out)
    folder, organisms = folder_of(model)
    also = [*overrides, *(["bf16=true"] if bf16 else [])]
    recipe_for(organisms, rows, recipe, also, steps)  # what is wrong with it is said before the model is loaded
    start = LanguageModel.load(folder, name=Path(model).name, device=device)
    chats = fine_tuning_set(data, rows, seed, start)
    how = recipe_for(organisms, len(chats), recipe, also, steps)
    if not organisms and recipe is None:
        tell(f"{start.name} is fine-tuned with the recipe of Betley et al. 2025, but for what you set: {how}.")
    tuned = _finetune(start, chats, how, seed, name=Path(out).name)
    tuned.save(out, None if whole else start)
    return tuned
