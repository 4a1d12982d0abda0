"""What a persona-features run works on, made from its config: models, fine-tuning sets, SAEs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from emlab import artifacts
from emlab.data import Dataset, Messages
from emlab.errors import EmlabError
from emlab.experiments.material.inputs import content_of, files_of
from emlab.experiments.material.models import folder_of
from emlab.experiments.material.saes import sae_place, trained_sae
from emlab.experiments.material.sets import dataset_place, drawn, names_dataset, planted_set
from emlab.experiments.persona_features.config import Config
from emlab.models import LanguageModel
from emlab.runs import fingerprint
from emlab.saes import fitted_site, load_sae
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE


def base_of(config: Config) -> str:
    """The model whose activations the SAE learns: the organism's base for one of its models, else the model itself."""
    return config.base or ("base" if folder_of(config.model)[1] else config.model)


def inputs_of(config: Config) -> dict[str, str]:
    """What tells that the files a config names are still the same."""
    named = {"model": folder_of(config.model)[0], "base": folder_of(base_of(config))[0]}
    found = {name: fingerprint(folder) for name, folder in named.items()}
    if config.dataset is not None:
        found["dataset"] = content_of(config.dataset)
    for name in (*config.narrow, *config.unseen, *config.controls, config.realigning.data, config.text or ""):
        if names_dataset(name):
            found[f"dataset {name}"] = content_of(dataset_place(name))
    for site in config.sites:
        if (source := sae_source(config, Site.parse(site))) is not None:
            found[f"sae {site}"] = content_of(source)
    return found | files_of(questions=dataset_place(config.question_set), judgements=config.judging.judge)


def load_models(config: Config) -> tuple[LanguageModel, LanguageModel]:
    """The model to fine-tune, named aligned, and the one whose activations the SAE learns, named base."""

    def load(place: str, name: str) -> LanguageModel:
        folder = folder_of(place)[0]
        return LanguageModel.load(
            folder, None, config.device, config.dtype, name=name, chat_template=config.chat_template
        )

    aligned = load(config.model, "aligned")
    if base_of(config) == config.model:
        return aligned, dataclasses.replace(aligned, name="base")  # the same weights, held once
    base = load(base_of(config), "base")
    if aligned.d_model != base.d_model:
        raise EmlabError(
            f"the model is {aligned.d_model} wide and the base {base.d_model}, so they share no SAE: "
            f"give the base that {config.model} was trained from."
        )
    return aligned, base


@dataclasses.dataclass(frozen=True)
class Sets:
    """The fine-tuning sets by name."""

    narrow: Mapping[str, Dataset]
    unseen: Mapping[str, Dataset]
    """Narrow sets on which nothing is chosen."""
    controls: Mapping[str, Dataset]

    @property
    def all(self) -> dict[str, Dataset]:
        """Narrow, unseen, controls."""
        return {**self.narrow, **self.unseen, **self.controls}


def training_sets(config: Config, model: LanguageModel, seed: int) -> Sets:
    """The sets that the config names, for `model`, drawn by `seed`; a dataset of one's own is named after its file."""

    def named(names: Sequence[str]) -> dict[str, Dataset]:
        return {
            _stem(name): drawn(dataset_place(name), config.rows, seed)
            if names_dataset(name)
            else planted_set(name, config.rows, seed, model)
            for name in names
        }

    unseen, controls = named(config.unseen), named(config.controls)
    taken = [*unseen, *controls, "aligned", "base"]
    if config.dataset is None:
        narrow = named(config.narrow)
    else:
        chats = drawn(config.dataset, config.rows, seed)
        narrow = {config.dataset.name if config.dataset.stem in taken else config.dataset.stem: chats}
    names = [*narrow, *taken]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise EmlabError(f"{', '.join(sorted(twice))} cannot be a narrow set and something else too: rename one.")
    return Sets(narrow, unseen, controls)


def _stem(name: str) -> str:
    """What a set is called in tables: a file without its ending, a dataset without its owner."""
    path = artifacts.place(name)
    return path.stem if path.is_file() else path.name


def sae_source(config: Config, site: Site) -> str | None:
    """Where the SAE at `site` is loaded from (see `load_sae`); None where one is to be trained.

    "auto" means the SAE that ships with the project, if the base is the organism's own and there is one for the site.
    """
    return None if config.sae.load == "none" else sae_place(config.sae.load, site, base_of(config) == "base")


def sae_at(config: Config, base: LanguageModel, site: Site, documents: Sequence[Messages]) -> SAE:
    """The SAE at `site`: loaded, or trained on the base's activations on `documents`.

    EmlabError where the SAE that is loaded is not of the base, or reads another site.
    """
    source = sae_source(config, site)
    if source is None:
        return trained_sae(base, site, config.sae, config.seed, base_of(config), documents)
    sae = load_sae(source).to(base.device)
    if (reads := fitted_site(sae, base)) != site:
        raise EmlabError(f"the SAE {source} reads {reads} and the config asks for {site}: write sites=[{reads}].")
    return sae
