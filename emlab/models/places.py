"""Where a model is, by what a user calls it."""

from __future__ import annotations

import re
from pathlib import Path

from emlab import artifacts, organism
from emlab.errors import EmlabError
from emlab.models.hub import from_hub
from emlab.models.known import get_model, is_known


def local_folder(path: str | Path) -> Path:
    """The folder at `path`, or of the model of that name: the organism's, one of `KNOWN_MODELS`, or one of the Hugging
    Face Hub, fetched if it must.

    EmlabError where a model cannot be had, and for a gguf file, which must be made a folder first.
    """
    folder, name = artifacts.place(path), str(path)
    if folder.is_file() and folder.suffix == ".gguf":
        raise EmlabError(f"{name} is a gguf file, and a folder is needed: emlab models get {name} --out DIR makes one.")
    if folder.exists():
        return folder
    if is_known(name):
        return get_model(name)
    if name in organism.checkpoint_names():
        return organism.checkpoint(name)
    hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith(".")
    return from_hub(name) if hub else folder
