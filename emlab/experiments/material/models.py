"""Models by the names that configs and commands give them."""

from __future__ import annotations

from pathlib import Path

from emlab import artifacts, organism
from emlab.errors import EmlabError
from emlab.models import LanguageModel
from emlab.models.loading import local_folder
from emlab.sites import Site


def folder_of(name: str) -> tuple[Path, bool]:
    """The folder of a model given by path, by the organism's name or the Hub's, and whether it is the organism's."""
    path = artifacts.place(name)
    own = not path.is_dir() and len(path.parts) == 1
    if own and name not in organism.checkpoint_names():
        raise EmlabError(
            f"There is no folder {name!r} here, and the organism has no model of that name; it has "
            f"{', '.join(organism.checkpoint_names())}."
        )
    return (organism.checkpoint(name), True) if own else (local_folder(name), False)


def model_named(name: str, chat_template: str | None = None) -> LanguageModel:
    """The model of `folder_of`, called by the last part of its name."""
    return LanguageModel.load(folder_of(name)[0], name=Path(name).name, chat_template=chat_template)


def site_in(text: str, model: LanguageModel) -> Site:
    """The site named `text`; EmlabError where `model` has no such block."""
    site = Site.parse(text)
    if site.block >= model.n_blocks:
        raise EmlabError(
            f"{site} is not in {model.name}, which has the blocks 0 to {model.n_blocks - 1}: choose another."
        )
    return site
