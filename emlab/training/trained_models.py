"""The models that a training leaves, on disk: the trained one, its adapter by itself, and the kept checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from emlab import artifacts
from emlab.models import LanguageModel, kept_adapters
from emlab.models.deferred import DeferredModel
from emlab.training.adapters import Adapter, lora_config
from emlab.training.recipe import Recipe

FIGURES = "training.json"

Kept = tuple[tuple[int, LanguageModel], ...]
"""Checkpoints: each step and the model after it."""


class Trained:
    """What saving has in common for all kinds of training."""

    model: LanguageModel
    adapter: Adapter | None
    checkpoints: Kept
    checkpoint_adapters: tuple[tuple[int, Adapter], ...]
    figures: ClassVar[tuple[str, ...]]
    """The fields that ``training.json`` holds."""

    def save(self, folder: str | Path, base: LanguageModel | None = None) -> Path:
        """Write the merged model, the adapter in ``adapter/``, the checkpoints and figures; whole or not at all.

        With `base`, the model that was trained on, adapters alone are written where there are any, and no whole models.
        """
        with artifacts.new_folder(folder) as new:
            self.write_into(new, base)
        return Path(folder)

    def write_into(self, new: Path, base: LanguageModel | None = None) -> None:
        """Write the same into a folder that is there already."""
        if base is not None and self.adapter is not None:
            write_adapters(new, base, self.adapter, self.checkpoint_adapters)
        else:
            write_models(new, self.model, self.adapter, self.checkpoints)
        held = {name: getattr(self, name) for name in self.figures}
        artifacts.write_json(new / FIGURES, {"name": self.model.name, **held})


def write_models(new: Path, model: LanguageModel, adapter: Adapter | None, checkpoints: Kept) -> None:
    """Write the model into a folder that is there, and below it ``adapter/`` and ``checkpoints/step_00040/``."""
    model.write_into(new)
    if adapter is not None:
        _write_adapter(new, adapter)
    for step, checkpoint in checkpoints:
        folder = _step_folder(new, step)
        folder.mkdir(parents=True)
        checkpoint.write_into(folder)


def write_adapters(
    new: Path, base: LanguageModel, adapter: Adapter, checkpoints: Sequence[tuple[int, Adapter]] = ()
) -> None:
    """Write the same without a whole model: adapters, and beside each what tells `base`, on which all were trained."""
    known = kept_adapters.Base.of(base)
    for folder, one in [(new, adapter), *((_step_folder(new, step), each) for step, each in checkpoints)]:
        folder.mkdir(parents=True, exist_ok=True)
        _write_adapter(folder, one)
        known.save(folder / kept_adapters.BASE)


def read_models(folder: Path, base: LanguageModel | None, name: str, defer: bool = False) -> tuple[LanguageModel, Kept]:
    """The model called `name` and its checkpoints, as either of the above wrote them.

    Adapters are merged into `base`, or where it is None into the base that they name; with `defer` when the models are
    used, and the last two alone are held (see `DeferredModel`). EmlabError where the base is another.
    """
    known = kept_adapters.Base.of(base) if base is not None and kept_adapters.is_kept(folder) else None

    def read(at: Path, called: str) -> LanguageModel:
        if base is None or known is None:
            return LanguageModel.load(at, name=called)
        make = partial(kept_adapters.merged, at, base, called, known)
        if not defer:
            return make()
        kept_adapters.check(at, base, known)
        return DeferredModel.of(base, called, make)

    steps = ((int(at.name.removeprefix("step_")), at) for at in _step_folders(folder))
    return read(folder, name), tuple((step, read(at, f"{name}, step {step}")) for step, at in steps)


def size_on_disk(model: LanguageModel, recipe: Recipe) -> int:
    """The bytes of what one training of `model` leaves, or one checkpoint of it: the adapter's, or all weights'.

    EmlabError where no module of the model matches the recipe.
    """
    if recipe.method != "lora":
        return sum(p.numel() * p.element_size() for p in model.model.parameters())
    names = lora_config(model, recipe).target_modules
    # Two matrices, of rank r, in float32: (r, inputs) and (outputs, r).
    return sum(4 * recipe.rank * sum(model.model.get_submodule(name).weight.shape) for name in names)


def _write_adapter(folder: Path, adapter: Adapter) -> None:
    (folder / kept_adapters.ADAPTER).mkdir()
    adapter.save(folder / kept_adapters.ADAPTER)


def _step_folder(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step_{step:05d}"


def _step_folders(folder: Path) -> Iterator[Path]:
    yield from sorted((folder / "checkpoints").glob("step_*"))
