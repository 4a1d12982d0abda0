"""Documents to read rather than to train on: chats and raw text, mixed, one at a time and never all in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from emlab import artifacts
from emlab.data.chat import Messages
from emlab.data.dataset import Dataset
from emlab.data.prompts import is_chat
from emlab.data.reading import files_of, rows_of, tell_left_out
from emlab.data.shapes import example_of
from emlab.errors import EmlabError
from emlab.notebook import Shown

Document = str | Messages | Sequence[int]
"""Raw text (it goes through no chat template), a chat, or token ids exactly as they stand."""


class LabelledDocument(NamedTuple):
    """A document, and what is known of it."""

    document: Document
    labels: Mapping[str, str]
    """By what they tell, for example persona: malicious."""


@dataclass(frozen=True, eq=False, repr=False)
class Documents(Shown):
    """Documents in their order. Iterating reads them anew from the first, where the source can be read again."""

    open: Callable[[], Iterable[Any]] = field(repr=False)
    """Begins to read."""
    name: str
    """What to call them."""
    content: str
    """What tells whether they are still the same: a hash of files or of what is in memory, else the name."""

    @classmethod
    def read(cls, source: str | Path, split: str = "train", labels: str | Sequence[str] = ()) -> Documents:
        """The documents in a file, a folder or a dataset of the hub.

        A row with a column `text` is raw text; all others are chats in the shapes of `read_examples`. JSONL, parquet,
        saved datasets and those of the hub are read row by row. The columns `labels` are what `labelled` tells of a
        document, where they are not null.
        """
        path = artifacts.place(source)
        named = (labels,) if isinstance(labels, str) else tuple(labels)
        tell_left_out(path, split)
        content: Any = str(source)
        if path.is_file():
            content = artifacts.sha256(path)
        elif files := files_of(path, split):
            content = {str(file.relative_to(path)): artifacts.sha256(file) for file in files}
        return cls(
            lambda: (_of_row(row, where, named) for where, row in rows_of(source, split)),
            str(source),
            artifacts.content_hash([content, split]),
        )

    @classmethod
    def of(cls, documents: Any, name: str = "in memory") -> Documents:
        """Documents as they are; a sequence of them, or anything that can be iterated, under a `name`.

        An iterator, such as a generator, can be read once, and its name alone vouches for what it gives; so does the
        name of a callable that returns a new iterator each time, which can be read as often as asked.
        """
        if isinstance(documents, Documents):
            return documents
        if isinstance(documents, str | Path):
            raise EmlabError(f"{documents} is no documents but a text or a path; read a file with Documents.read.")
        if callable(documents):
            return cls(documents, name, artifacts.content_hash(name))
        if isinstance(documents, Dataset):
            return cls(lambda: documents, name, documents.card.content)
        if isinstance(documents, Iterator):
            return cls(_once(documents, name), name, artifacts.content_hash(name))
        if is_chat(documents):
            documents = [documents]  # a lone chat is one document
        if isinstance(documents, Sequence):
            return cls(lambda: documents, name, artifacts.content_hash([_document(one) for one in documents]))
        return cls(lambda: documents, name, artifacts.content_hash(name))

    @classmethod
    def in_turn(cls, several: Sequence[Documents]) -> Documents:
        """One document of each in turn, as long as it has some; of one, itself. EmlabError for none."""
        if not several:
            raise EmlabError("There are no documents; name at least one file of them.")
        if len(several) == 1:
            return several[0]
        gone = object()

        def mixed() -> Iterator[Any]:
            for row in itertools.zip_longest(*(one.open() for one in several), fillvalue=gone):
                yield from (document for document in row if document is not gone)

        name = " and ".join(one.name for one in several)
        return cls(mixed, name, artifacts.content_hash([one.content for one in several]))

    def __iter__(self) -> Iterator[Document]:
        return map(_document, self.open())

    def labelled(self) -> Iterator[LabelledDocument]:
        """Each with its labels; one that came without any has none."""
        for value in self.open():
            yield value if isinstance(value, LabelledDocument) else LabelledDocument(_document(value), {})

    def first(self, n: int) -> Documents:
        """The first `n` of them."""
        return self._part(f"the first {n} of {self.name}", 0, n)

    def after(self, n: int) -> Documents:
        """All but the first `n`."""
        return self._part(f"{self.name} after the first {n}", n, None)

    def _part(self, name: str, start: int, stop: int | None) -> Documents:
        content = artifacts.content_hash([self.content, start, stop])
        return Documents(lambda: itertools.islice(self.open(), start, stop), name, content)

    def __str__(self) -> str:
        return self.name


def _of_row(row: Any, where: str, labels: Sequence[str]) -> Document | LabelledDocument:
    text = row.get("text") if isinstance(row, Mapping) else None
    if text is not None and not isinstance(text, str):
        raise EmlabError(f"{where}: the column 'text' holds no text; write a string.")
    document = example_of(row, where).messages if text is None else text
    if not labels:
        return document
    if missing := [name for name in labels if name not in row]:
        raise EmlabError(f"{where}: there is no column {missing[0]!r} to label by; name one of {', '.join(row)}.")
    return LabelledDocument(document, {name: str(row[name]) for name in labels if row[name] is not None})


def _document(value: Any) -> Document:
    """A document, or what holds it (a chat in `messages`), as a document."""
    if isinstance(value, LabelledDocument):
        return value.document
    messages = value.get("messages") if isinstance(value, Mapping) else getattr(value, "messages", None)
    return value if messages is None else messages


def _once(documents: Iterator[Any], name: str) -> Callable[[], Iterator[Any]]:
    begun: list[bool] = []

    def open_() -> Iterator[Any]:
        if begun:
            raise EmlabError(
                f"The documents {name!r} are an iterator, which can be read only once, and have been; give a list, a "
                "file, or a function that returns a new iterator."
            )
        begun.append(True)
        return documents

    return open_
