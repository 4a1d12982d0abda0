"""Models by the names that configs and commands give them."""

from __future__ import annotations

from pathlib import Path

from emlab import artifacts, organism
from emlab.errors import EmlabError
from emlab.models import LanguageModel
from emlab.models.known import KNOWN_MODELS, is_known
from emlab.models.places import local_folder
from emlab.sites import Site


def folder_of(name: str) -> tuple[Path, bool]:
    """The folder of a model given by path, by the organism's name, the Hub's or one of `KNOWN_MODELS`; whether it is
    the organism's."""
    path = artifacts.place(name)
    if path.is_dir() or len(path.parts) > 1 or is_known(name):
        return local_folder(name), False
    if name not in organism.checkpoint_names():
        raise EmlabError(
            f"There is no folder {name!r} here, and neither the organism nor emlab has a model of that name; they have "
            f"{', '.join([*organism.checkpoint_names(), *(model.name for model in KNOWN_MODELS)])}."
        )
    return organism.checkpoint(name), True


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
