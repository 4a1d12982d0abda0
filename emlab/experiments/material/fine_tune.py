"""A fine-tune of one model on one set, both by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from emlab import artifacts
from emlab.experiments.material.models import model_named
from emlab.experiments.material.sets import fine_tuning_set
from emlab.training import FineTuned, Recipe
from emlab.training import finetune as _finetune

RECIPE = Recipe(learning_rate=4e-3, batch_size=16, steps=60)
"""The recipe of experiments/persona_features.yaml."""


def finetune(
    model: str,
    data: str,
    out: str | Path,
    rows: int = 1000,
    seed: int = 0,
    steps: int | None = None,
    whole: bool = True,
) -> FineTuned:
    """Fine-tune `model` on the set `data` by LoRA and save it in the new folder `out`, merged unless not `whole`."""
    artifacts.check_new(out)
    start = model_named(model)
    recipe = RECIPE if steps is None else dataclasses.replace(RECIPE, steps=steps)
    tuned = _finetune(start, fine_tuning_set(data, rows, seed, start), recipe, seed, name=Path(out).name)
    tuned.save(out, None if whole else start)
    return tuned
