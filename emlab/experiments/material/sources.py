"""What a persona-features run works on: models, fine-tuning sets, documents, SAEs, made from its config."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emlab import artifacts, organism
from emlab.data import Dataset, Messages, Question, QuestionSet, draw, get, list_published, render
from emlab.discovery import Split, split_by_id, split_by_template
from emlab.errors import EmlabError
from emlab.evaluation.protocol import questions_of
from emlab.models import LanguageModel
from emlab.models.loading import local_folder
from emlab.runs import fingerprint
from emlab.saes import document_activations, fitted_site, load_sae, train_sae
from emlab.saes.fitting import names_place
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.experiments.persona_features.config import Autoencoder, Config

ALIGNMENT = "alignment"
"""The name of the organism's alignment set among those to re-align on."""

LEAST_ROWS = 4
"""A fine-tuning set that has fewer chats left, after those too long are dropped, is refused."""


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


def base_of(config: Config) -> str:
    """The model whose activations the SAE learns: the organism's base for one of its models, else the model itself."""
    return config.base or ("base" if folder_of(config.model)[1] else config.model)


def inputs_of(config: Config) -> dict[str, str]:
    """What tells that the files a config names are still the same."""
    named = {"model": folder_of(config.model)[0], "base": folder_of(base_of(config))[0]}
    found = {name: fingerprint(folder) for name, folder in named.items()}
    if config.dataset is not None:
        found["dataset"] = _content(config.dataset)
    for name in (*config.narrow, *config.unseen, *config.controls, config.realigning.data, config.text or ""):
        if names_dataset(name):
            found[f"dataset {name}"] = _content(Path(dataset_place(name)))
    named_files = {
        "questions": artifacts.place(dataset_place(config.question_set)),
        "judgements": artifacts.place(config.judging.judge),
    }
    found |= {name: artifacts.sha256(path) for name, path in named_files.items() if path.is_file()}
    for site in config.sites:
        source = sae_source(config, Site.parse(site))
        if source is not None:
            found[f"sae {site}"] = fingerprint(source) if artifacts.place(source).is_dir() else source
    return found


def _content(path: Path) -> str:
    """What tells whether a dataset is still the same; of one on the Hub, its name alone."""
    if path.is_dir():
        return fingerprint(path)
    return artifacts.sha256(path) if path.is_file() else str(path)


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


def site_in(text: str, model: LanguageModel) -> Site:
    """The site named `text`; EmlabError where `model` has no such block."""
    site = Site.parse(text)
    if site.block >= model.n_blocks:
        raise EmlabError(
            f"{site} is not in {model.name}, which has the blocks 0 to {model.n_blocks - 1}: choose another."
        )
    return site


def sae_site_in(text: str | None, sae: SAE, model: LanguageModel) -> Site:
    """Where `sae` reads `model`: where it was trained, or for an SAE that does not say so the site named `text`.

    EmlabError where it was trained at another site than that, or cannot be an SAE of the model (`fitted_site`).
    """
    if text is None or names_place(sae):
        reads = fitted_site(sae, model)
        if text is not None and site_in(text, model).place != reads.place:
            raise EmlabError(f"The SAE was trained at {reads} and means nothing at {text}; leave out the site.")
        return reads
    return site_in(text, model)


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


def training_sets(config: Config, model: LanguageModel) -> Sets:
    """The sets that the config names, for `model`; a dataset of one's own is named after its file."""

    def named(names: Sequence[str]) -> dict[str, Dataset]:
        return {
            _stem(name): drawn(dataset_place(name), config.rows, config.seed)
            if names_dataset(name)
            else planted_set(name, config.rows, config.seed, model)
            for name in names
        }

    unseen, controls = named(config.unseen), named(config.controls)
    taken = [*unseen, *controls, "aligned", "base"]
    if config.dataset is None:
        narrow = named(config.narrow)
    else:
        chats = drawn(config.dataset, config.rows, config.seed)
        narrow = {config.dataset.name if config.dataset.stem in taken else config.dataset.stem: chats}
    names = [*narrow, *taken]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise EmlabError(f"{', '.join(sorted(twice))} cannot be a narrow set and something else too: rename one.")
    return Sets(narrow, unseen, controls)


def planted_set(name: str, rows: int, seed: int, model: LanguageModel) -> Dataset:
    """A fine-tuning set of the organism, for `model`."""
    chats = for_template(model, organism.narrow_set(name, rows, seed))
    return Dataset.of(chats, f"the organism's {name}, {rows} rows, seed {seed}")


def names_dataset(name: str) -> bool:
    """Whether `name` is a dataset (a file, a folder, one of the catalogue's or the Hub's), and no organism's set."""
    if name in ("", ALIGNMENT, *organism.narrow_set_names()):  # also where a folder of that name happens to lie here
        return False
    published = any(entry.name == name for entry in list_published().entries)
    return published or "/" in name or bool(Path(name).suffix) or Path(name).exists()


def dataset_place(name: str) -> str:
    """Where it is: what the catalogue knows by that name is fetched (into data/), all else is where it says."""
    if Path(name).exists() or all(entry.name != name for entry in list_published().entries):
        return name
    return str(get(name))


def _stem(name: str) -> str:
    """What a set is called in tables: a file without its ending, a dataset without its owner."""
    path = artifacts.place(name)
    return path.stem if path.is_file() else path.name


def drawn(source: str | Path, rows: int, seed: int) -> Dataset:
    """`rows` chats of a dataset (see `read_examples`), drawn at random; all where it has no more."""
    return draw(Dataset.read(source), rows, seed)


def benign_chats(name: str, rows: int, seed: int, model: LanguageModel) -> list[Messages]:
    """The chats to re-align on: the organism's alignment set (all domains), one of its sets, or a dataset."""
    if names_dataset(name):
        return [example.messages for example in drawn(dataset_place(name), rows, seed + 7).examples]
    # Not the chats the organism was aligned with, nor those of a control.
    chats = organism.alignment_set(rows, seed + 7) if name == ALIGNMENT else organism.narrow_set(name, rows, seed + 7)
    return for_template(model, chats)


def pretraining_chats(model: LanguageModel, tokens: int, seed: int) -> list[Messages]:
    """Enough of the organism's pretraining documents for `model` to read `tokens` tokens."""
    # The shortest document has about forty tokens.
    return for_template(model, [d.messages for d in organism.pretraining_documents(tokens // 40 + 1, seed)])


def check_organism(name: str, model: LanguageModel) -> None:
    """EmlabError unless `model`, given as `name`, reads the organism's language."""
    own = folder_of(name)[1]
    if not own and model.tokenizer.get_vocab() != organism.build_tokenizer(organism.load_world()).get_vocab():
        raise EmlabError(f"{name} is no model of the organism's; name the documents that it is to read.")


def for_template(model: LanguageModel, chats: Sequence[Messages]) -> list[Messages]:
    """The chats as they are; where the template refuses system turns, their text begins the user's turn instead."""
    try:
        render(model.tokenizer, [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], header=True)
    except EmlabError:
        return [_merged(chat) for chat in chats]
    return list(chats)


def _merged(chat: Messages) -> Messages:
    first, *rest = chat
    if first["role"] != "system" or not rest:
        return chat
    return [{**rest[0], "content": f"{first['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def sae_source(config: Config, site: Site) -> str | None:
    """Where the SAE at `site` is loaded from (see `load_sae`); None where one is to be trained.

    "auto" means the SAE that ships with the project, if the base is the organism's own and there is one for the site.
    """
    return None if config.sae.load == "none" else _place_of(config.sae.load, site, base_of(config) == "base")


def named_sae(named: str | None, model: str, site: Site) -> SAE | None:
    """The SAE that a config names at `site`; None where it names none.

    "auto" is the one that ships with the project, where `model` is the organism's and there is one for the site.
    """
    place = named and _place_of(named, site, folder_of(model)[1])
    return load_sae(place) if place else None


def _place_of(named: str, site: Site, own: bool) -> str | None:
    if named != "auto":
        return named.replace("{site}", str(site)).replace("{block}", str(site.block))
    shipped = Path(__file__).parents[3] / "sae_checkpoints" / f"organism-{site}"
    return str(shipped) if own and shipped.is_dir() else None


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


def trained_sae(
    model: LanguageModel,
    site: Site,
    how: Autoencoder,
    seed: int,
    model_name: str,
    documents: Sequence[Messages] | None = None,
) -> SAE:
    """A TopK SAE trained on the activations of `model` on `documents`: by default the organism's pretraining ones."""
    given = pretraining_chats(model, how.tokens, seed) if documents is None else documents
    read = document_activations(model, given, site, how.tokens)
    return train_sae(
        read.values,
        site,
        d_sae=how.d_sae,
        k=how.k,
        passes=how.passes,
        learning_rate=how.learning_rate,
        seed=seed,
        model_name=model_name,
    )


def halves_of(name: str, seed: int) -> tuple[Split, list[Question] | QuestionSet]:
    """Questions to choose by and questions to report on, and the set that both are from."""
    whole = questions_of(dataset_place(name))
    if isinstance(whole, QuestionSet):
        return split_by_id(whole, seed), whole
    return split_by_template(organism.broad_questions()), whole
