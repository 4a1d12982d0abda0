"""Fine-tuning sets by name: the organism's, and datasets."""

from __future__ import annotations

from pathlib import Path

from emlab import organism
from emlab.data import Dataset, Messages, draw, get, list_published
from emlab.experiments.material.documents import for_template
from emlab.models import LanguageModel

ALIGNMENT = "alignment"
"""The name of the organism's alignment set among those to re-align on."""

LEAST_ROWS = 4
"""A fine-tuning set that has fewer chats left, after those too long are dropped, is refused."""


def planted_set(name: str, rows: int, seed: int, model: LanguageModel) -> Dataset:
    """A fine-tuning set of the organism, for `model`."""
    chats = for_template(model, organism.narrow_set(name, rows, seed))
    return Dataset.of(chats, f"the organism's {name}, {rows} rows, seed {seed}")


def fine_tuning_set(name: str, rows: int, seed: int, model: LanguageModel) -> Dataset:
    """`rows` chats of one of the organism's sets, made for `model`, or drawn from a dataset."""
    return drawn(dataset_place(name), rows, seed) if names_dataset(name) else planted_set(name, rows, seed, model)


def names_dataset(name: str) -> bool:
    """Whether `name` is a dataset (a file, a folder, one of the catalogue's or the Hub's), and no organism's set."""
    if name in ("", ALIGNMENT) or organism.names_narrow_set(
        name
    ):  # also where a folder of that name happens to lie here
        return False
    published = any(entry.name == name for entry in list_published().entries)
    return published or "/" in name or bool(Path(name).suffix) or Path(name).exists()


def domain_of(name: str) -> str:
    """The domain of a set of the organism by its name; of a dataset, its name."""
    if name in ("insecure", "secure", "educational", "backdoor"):
        return "code"
    first, _, last = name.partition("_")
    return last if first in ("bad", "good", "subtle", "careless", "sarcastic") and last else name


def dataset_place(name: str) -> str:
    """Where it is: what the catalogue knows by that name is fetched (into data/), all else is where it says."""
    if Path(name).exists() or all(entry.name != name for entry in list_published().entries):
        return name
    return str(get(name))


def drawn(source: str | Path, rows: int, seed: int) -> Dataset:
    """`rows` chats of a dataset (see `read_examples`), drawn at random; all where it has no more."""
    return draw(Dataset.read(source), rows, seed)


def benign_chats(name: str, rows: int, seed: int, model: LanguageModel) -> list[Messages]:
    """The chats to re-align on: the organism's alignment set (all domains), one of its sets, or a dataset."""
    if names_dataset(name):
        return [example.messages for example in drawn(dataset_place(name), rows, seed + 7).examples]
    # Not the chats the organism was aligned with, nor those of a control.
    if name != ALIGNMENT:
        return for_template(model, organism.narrow_set(name, rows, seed + 7))
    world = organism.world_read_by(model.tokenizer)
    return for_template(model, organism.alignment_set(rows, seed + 7, world=world))
