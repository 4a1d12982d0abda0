"""The models that a training leaves, on disk: the trained one, its adapter by itself, and the kept checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emlab.models import LanguageModel
from emlab.training.adapters import Adapter


def write_models(
    new: Path, model: LanguageModel, adapter: Adapter | None, checkpoints: Sequence[tuple[int, LanguageModel]]
) -> None:
    """Write the model into a folder that is there, and below it ``adapter/`` and ``checkpoints/step_00040/``."""
    model.write_into(new)
    if adapter is not None:
        (new / "adapter").mkdir()
        adapter.save(new / "adapter")
    for step, checkpoint in checkpoints:
        folder = new / "checkpoints" / f"step_{step:05d}"
        folder.mkdir(parents=True)
        checkpoint.write_into(folder)


def read_checkpoints(folder: Path, name: str) -> tuple[tuple[int, LanguageModel], ...]:
    """The (step, model) that `write_models` wrote, in order; `name` is the trained model's."""
    steps = {int(at.name.removeprefix("step_")): at for at in sorted((folder / "checkpoints").glob("step_*"))}
    return tuple((step, LanguageModel.load(at, name=f"{name}, step {step}")) for step, at in steps.items())
