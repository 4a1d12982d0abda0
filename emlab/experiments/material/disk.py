"""What a run will take on disk, said before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from emlab.experiments.material.config import Autoencoder
from emlab.models import LanguageModel
from emlab.runs import Run
from emlab.training import Recipe
from emlab.training.trained_models import size_on_disk


def say(here: Run, parts: Mapping[str, int], meanwhile: int = 0) -> None:
    """Log the bytes of each part, their sum, and what is free; `meanwhile` are taken besides while it trains."""
    total, free = sum(parts.values()), shutil.disk_usage(here.folder).free
    each = "; ".join(f"{name} {size(n)}" for name, n in parts.items() if n)
    more = f", and {size(meanwhile)} more while a model is trained" if meanwhile else ""
    short = " That is too little: choose another place for the run, or stop it and free some." if total > free else ""
    here.log(
        f"On disk this run will take {size(total)}{more} ({each or 'no models'}), besides the answers, of under 1 kB "
        f"each, and the report, of 5 MB; {size(free)} are free.{short}"
    )


def of_trainings(model: LanguageModel, recipe: Recipe, models: int) -> dict[str, int]:
    """The bytes of so many fine-tunes and checkpoints of `model`, by what they are kept as."""
    kept = "as adapters" if recipe.method == "lora" else "as whole models"
    return {f"{models} fine-tunes and checkpoints {kept}": models * size_on_disk(model, recipe)}


def of_state(model: LanguageModel, recipe: Recipe) -> int:
    """The bytes from which a killed training goes on: what is trained, and its two moments, all in float32."""
    full = sum(4 * p.numel() for p in model.model.parameters())
    return 3 * (size_on_disk(model, recipe) if recipe.method == "lora" else full)


def of_sae(model: LanguageModel, how: Autoencoder, source: str | None) -> int:
    """The bytes of the SAE that a run keeps: a folder's, one it trains, or of a published one nothing."""
    if source is None:
        return 4 * (2 * model.d_model * how.d_sae + model.d_model + how.d_sae)
    folder = Path(source)
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0


def size(n: int) -> str:
    """Bytes in a unit that is easily read."""
    value, unit = float(n), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
