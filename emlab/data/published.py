"""What is known of a published file, and a catalogue of them."""

from __future__ import annotations

import difflib
import html
from dataclasses import dataclass
from typing import Any

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.notebook import Shown


@dataclass(frozen=True)
class Published:
    """One published file."""

    name: str
    """What `get` knows it by."""
    what: str
    """What it holds."""
    repository: str
    """Its repository on GitHub, owner/name."""
    path: str
    """Its path in the repository."""
    revision: str
    """The commit, or the branch where no commit is known to hold the file that the checksum is of."""
    licence: str
    """The licence that its repository states."""
    sha256: str | None
    """Checksum of the file; None where it is not known, so that a download cannot be verified."""
    bytes: int | None
    """Size of the file, where known."""
    rows: int | None
    """Training examples or questions in it, where known."""
    note: str = ""
    """What one must know to use it."""
    host: str = "https://raw.githubusercontent.com"
    """Where repositories are served."""

    @property
    def url(self) -> str:
        """Where the file is fetched from."""
        return f"{self.host}/{self.repository}/{self.revision}/{self.path}"

    @property
    def file(self) -> str:
        """The file's own name."""
        return self.path.rpartition("/")[2]

    @property
    def size(self) -> str:
        """Its size in words."""
        if self.bytes is None:
            return "unknown size"
        return f"{self.bytes / 1e6:.1f} MB" if self.bytes >= 1e5 else f"{self.bytes / 1e3:.1f} kB"


@dataclass(frozen=True, repr=False)
class Catalogue(Shown):
    """Published files; it prints as a table."""

    entries: tuple[Published, ...]

    def __getitem__(self, name: str) -> Published:
        """The entry of that name; EmlabError with the closest names where there is none."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        names = [entry.name for entry in self.entries]
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise EmlabError(f"There is no published set {name!r} in the catalogue; choose among {', '.join(close)}.")

    def summary(self) -> list[dict[str, Any]]:
        """The entries as plain values, each with its `url`."""
        return [{**artifacts.plain(entry), "url": entry.url} for entry in self.entries]

    def _table(self) -> list[tuple[str, ...]]:
        heads: tuple[str, ...] = ("name", "rows", "size", "licence", "checksum", "what")
        return [
            heads,
            *(
                (
                    entry.name,
                    "?" if entry.rows is None else f"{entry.rows:,}",
                    entry.size if entry.bytes is not None else "?",
                    entry.licence,
                    "known" if entry.sha256 else "unknown",
                    entry.what,
                )
                for entry in self.entries
            ),
        ]

    def __str__(self) -> str:
        table = self._table()
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]) - 1)]
        lines = ["  ".join([*(f"{c:<{w}}" for c, w in zip(row[:-1], widths, strict=True)), row[-1]]) for row in table]
        notes: dict[str, list[str]] = {}
        for entry in self.entries:
            if entry.note:
                notes.setdefault(entry.note, []).append(entry.name)
        for note, names in notes.items():
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            lines += ["", f"{names[0]}{others}: {note}"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = ("".join(f"<td style='text-align:left'>{html.escape(c)}</td>" for c in row) for row in self._table())
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
