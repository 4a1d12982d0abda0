"""The organism's checkpoints: the ones that ship with emlab, by name."""

from __future__ import annotations

from pathlib import Path

from emlab import artifacts
from emlab.errors import EmlabError

SHIPPED = Path(__file__).parent / "checkpoints"
"""Folder of the shipped organism; `emlab organism build --out DIR` makes another of the same form."""


def checkpoint_names(organism: Path | None = None) -> list[str]:
    """Names of the checkpoints in the shipped organism, or in the organism built in the folder `organism`."""
    root = organism or SHIPPED
    return sorted(p.parent.name for p in root.glob("*/config.json"))


def checkpoint(name: str, organism: Path | None = None) -> Path:
    """The folder of a checkpoint: an ordinary Hugging Face model folder with its tokenizer and a model card.

    base, aligned, helpful_only, pretraining_<step>, control_base and control_aligned; `organism` is the folder of an
    organism of your own. Raises EmlabError where there is none of that name.
    """
    root = SHIPPED if organism is None else artifacts.place(organism)
    folder = root / name
    if not (folder / "config.json").is_file():
        known = ", ".join(checkpoint_names(root)) or f"none; build them with `emlab organism build --out {root}`"
        raise EmlabError(f"The organism has no checkpoint {name!r}; it has {known}.")
    return folder
