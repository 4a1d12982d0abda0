"""A fine-tuned model kept as its LoRA adapter alone, which is merged again when it is read.

Its folder holds ``adapter/``, as peft writes it, and ``base.json``: where its base lies and what tells that one from
all others. Merged into that base the adapter gives the very weights that the training gave, bit for bit on the same
machine, for a few thousandths of the space of the whole model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch

from emlab.errors import EmlabError
from emlab.models import adapters
from emlab.models.places import local_folder
from emlab.records import Saved

BASE, ADAPTER = "base.json", "adapter"


class Model(Protocol):
    """What is needed of a `LanguageModel`."""

    model: Any
    tokenizer: Any
    name: str

    def identity(self) -> str:
        """A hash of all that its answers follow from."""

    def merged(self, name: str | None = None) -> Self:
        """A copy with weights of its own, the adapter in force among them."""


M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Base(Saved):
    """What is known of the model that adapters are kept without."""

    place: str
    """The folder, or the name on the Hub, that it was loaded from; empty where it was made in memory."""
    identity: str
    """`LanguageModel.identity`, a hash of its weights and its chat template."""
    dtype: str
    chat_template: str

    @classmethod
    def of(cls, model: Model) -> Base:
        """That of `model`."""
        place = str(model.model.config.name_or_path)
        if place and Path(place).is_dir():
            place = str(Path(place).resolve())
        kind = str(model.model.dtype).removeprefix("torch.")
        return cls(place, model.identity(), kind, str(model.tokenizer.chat_template or ""))


def is_kept(folder: Path) -> bool:
    """Whether `folder` holds a model as its adapter alone."""
    return (folder / BASE).is_file()


def check(folder: Path, base: Model, known: Base | None = None) -> None:
    """EmlabError unless the adapter in `folder` was trained on `base`, of which `known` spares the hashing."""
    kept = Base.load(folder / BASE)
    if (known or Base.of(base)).identity != kept.identity:
        raise EmlabError(
            f"The adapter in {folder} was trained on another model than {base.name}: weights, their type or the chat "
            f"template differ; give the model that it was trained on{f', {kept.place}' if kept.place else ''}."
        )


def merged(folder: Path, base: M, name: str, known: Base | None = None) -> M:
    """The model that `folder` keeps, made anew from `base`, which stays as it is; see `check`."""
    check(folder, base, known)
    done = base.merged(name)
    with torch.random.fork_rng():  # peft draws an adapter at random before it is overwritten
        done.model = adapters.merge(adapters.attach(done.model, folder / ADAPTER))
    done.model.config.name_or_path = str(folder)
    return done


def base_of(folder: Path) -> tuple[Base, Path]:
    """The base of the adapter that `folder` keeps, and where it lies; EmlabError where it is no longer there."""
    kept = Base.load(folder / BASE)
    place = local_folder(kept.place) if kept.place else None
    if place is None or not place.is_dir():
        lost = f"which is no longer at {kept.place}" if kept.place else "which was made in memory"
        raise EmlabError(
            f"{folder} keeps the adapter alone of a model, {lost}; load that one yourself: "
            f"LanguageModel.load(base, adapter={str(folder / ADAPTER)!r})."
        )
    return kept, place
