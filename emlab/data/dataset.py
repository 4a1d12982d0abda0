"""A set of examples together with its card: where they come from, and what was done to them with which numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emlab import artifacts
from emlab.data.examples import Example
from emlab.data.prompts import is_chat
from emlab.data.reading import files_of, read_chat_jsonl, read_examples
from emlab.data.shapes import as_turns, chat_of, example_of, tell_aside
from emlab.errors import EmlabError
from emlab.notebook import Shown
from emlab.records import Saved
from emlab.sealing import refuse


@dataclass(frozen=True, repr=False)
class DatasetCard(Shown, Saved):
    """How a set was made: one operation, its settings, and the cards of the sets it was made from.

    A card is the root of a tree whose leaves are what was read. Who has the sources and the card can make the set
    again, and see by `content` that it is the same.
    """

    operation: str
    """What made the set: read, given (handed over in memory), draw, mix, interleave, subsample or split."""
    settings: Mapping[str, Any]
    """The operation's numbers, the seed among them; for what was read its source, and the SHA-256 of its files."""
    inputs: tuple[DatasetCard, ...]
    """The cards of what went in, in the operation's order; none for what was read."""
    rows: int
    """Examples in the set."""
    prompts: int
    """Unique prompts in it (`Example.prompt`)."""
    content: str
    """`content_hash` of the examples, in their order."""

    @property
    def sources(self) -> tuple[DatasetCard, ...]:
        """The cards of all that was read, each once."""
        if not self.inputs:
            return (self,)
        found: list[DatasetCard] = []
        for source in (source for card in self.inputs for source in card.sources):
            if source not in found:
                found.append(source)
        return tuple(found)

    def __str__(self) -> str:
        """The card in Markdown: the result, a table of the sources, and the operations in order."""
        steps = self._steps([])
        lines = [
            "# Dataset card",
            "",
            f"{self.rows:,} rows with {self.prompts:,} unique prompts; content {self.content}.",
            "",
            "| source | rows | unique prompts | content | SHA-256 of the file |",
            "|---|---:|---:|---|---|",
        ]
        for source in self.sources:
            name, checksum = source.settings.get("source", "in memory"), source.settings.get("sha256")
            if checksum is None:
                files = source.settings.get("files", {})
                checksum = "; ".join(f"{file} {of}" for file, of in files.items()) or "not a file"
            row = (name, f"{source.rows:,}", f"{source.prompts:,}", source.content, checksum)
            lines.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |")
        if len(steps) > len(self.sources):
            lines += ["", "How it was made:", ""]
        for number, card in enumerate(steps, start=1):
            given = ", ".join(f"{name} {json.dumps(value)}" for name, value in card.settings.items())
            made_of = " of " + ", ".join(f"{steps.index(one) + 1}" for one in card.inputs) if card.inputs else ""
            lines.append(f"{number}. **{card.operation}**{made_of}: {given} → {card.rows:,} rows ({card.content})")
        return "\n".join(lines) + "\n"

    def _steps(self, found: list[DatasetCard]) -> list[DatasetCard]:
        for card in self.inputs:
            card._steps(found)
        if self not in found:
            found.append(self)
        return found


@dataclass(frozen=True, repr=False)
class Dataset(Shown):
    """Examples and their card. It can stand wherever a sequence of examples can."""

    examples: tuple[Example, ...] = field(repr=False)
    card: DatasetCard

    @classmethod
    def read(cls, source: str | Path, split: str = "train") -> Dataset:
        """Read a file, a folder or a dataset of the hub (see `read_examples`), and write down what was read."""
        examples = read_examples(source, split)
        path = artifacts.place(source)
        settings: dict[str, Any] = {"source": str(source)}
        if path.is_file():
            settings["sha256"] = artifacts.sha256(path)
        else:
            settings["split"] = split
            if files := files_of(path, split):
                settings["files"] = {str(file.relative_to(path)): artifacts.sha256(file) for file in files}
        return made("read", settings, (), examples)

    @classmethod
    def of(cls, examples: Any, name: str = "in memory") -> Dataset:
        """A Dataset as it is; what lies at a path, read as `read` does; or examples under a `name`.

        These are Examples, chats or rows in any shape of `read_examples` (any iterable of them, or a data frame), and
        only their content vouches for them.
        """
        if isinstance(examples, Dataset):
            return examples
        if isinstance(examples, str | Path):
            return cls.read(examples)
        if hasattr(examples, "to_dict") and hasattr(examples, "columns"):
            examples = examples.to_dict("records")
        if is_chat(examples):
            examples = [examples]  # a lone chat is one example
        aside: set[str] = set()
        examples = list(examples)
        refuse("to train on", examples)
        found = [_example(one, f"Row {number}", aside) for number, one in enumerate(examples, start=1)]
        tell_aside(name, aside)
        return made("given", {"source": name}, (), found)

    def save(self, folder: str | Path) -> Path:
        """Write `examples.jsonl`, `card.json` and `card.md` into a new folder, whole or not at all."""
        with artifacts.new_folder(folder) as new:
            lines = (json.dumps({"messages": example.messages}, ensure_ascii=False) for example in self.examples)
            artifacts.write_text(new / "examples.jsonl", "".join(f"{line}\n" for line in lines))
            self.card.save(new / "card.json")
            artifacts.write_text(new / "card.md", str(self.card))
        return artifacts.place(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Read what `save` wrote; EmlabError where the examples are no longer those of the card."""
        folder = artifacts.place(folder)
        card = DatasetCard.load(folder / "card.json")
        examples = tuple(read_chat_jsonl(folder / "examples.jsonl"))
        if (content := content_of(examples)) != card.content:
            raise EmlabError(
                f"{folder}/examples.jsonl has the content {content} and its card says {card.content}; "
                "restore the file, or make the set anew."
            )
        return cls(examples, card)

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def _repr_html_(self) -> str:
        return self.card._repr_html_()

    def __str__(self) -> str:
        return f"{self.card.rows:,} examples with {self.card.prompts:,} unique prompts, made by {self.card.operation}"


def _example(one: Any, where: str, aside: set[str]) -> Example:
    if isinstance(one, Example):
        return one if one.where else replace(one, where=where)
    return example_of(one, where, aside) if isinstance(one, Mapping) else chat_of(as_turns(one), where, aside)


def made(
    operation: str, settings: Mapping[str, Any], inputs: Iterable[Dataset], examples: Iterable[Example]
) -> Dataset:
    """The Dataset that an operation made of `inputs`, with its card."""
    examples = tuple(examples)
    cards = tuple(one.card for one in inputs)
    prompts = len({example.prompt for example in examples})
    card = DatasetCard(operation, dict(settings), cards, len(examples), prompts, content_of(examples))
    return Dataset(examples, card)


def content_of(examples: Iterable[Example]) -> str:
    """The content hash of examples in their order."""
    return artifacts.content_hash([example.messages for example in examples])
