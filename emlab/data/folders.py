"""Which files of a folder hold the rows of a split, and which are left out.

Every file that emlab has a reader for is read, whatever its name and however deep it lies. A name tells a split where
one of its words does (train, training; validation, valid, val, dev; test, testing, eval, evaluation), that of the file
before that of its folder; what tells none is the training split's, like the only file of most folders. A name of
another split than these is one that a file (before ``-00000-of-00001``) or its folder has as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from emlab.data.telling import some
from emlab.errors import EmlabError

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""The words that tell a split."""

RECORDS = ("card.json", "source.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What emlab and `datasets` write beside the rows."""

_PROSE = ("readme", "license", "licence", "notice", "citation", "changelog")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True)
class FolderFiles:
    """The files of a folder, for one split."""

    folder: Path
    read: tuple[Path, ...]
    """Whose rows are read, in the order of their names."""
    left_out: tuple[tuple[Path, str], ...]
    """The others that may hold rows, each with the reason."""

    def note(self) -> str | None:
        """One line that says what is left out, or that files of several kinds are read together; None: all is plain."""
        kinds = {file.suffix.lower() for file in self.read}
        if not self.left_out and len(kinds) == 1:
            return None
        reasons: dict[str, list[str]] = {}
        for file, reason in self.left_out:
            reasons.setdefault(reason, []).append(str(file.relative_to(self.folder)))
        out = "; ".join(f"{some(names, 8)} ({reason})" for reason, names in reasons.items())
        read = some((str(file.relative_to(self.folder)) for file in self.read), 8)
        return f"{self.folder}: read {read}" + (f"; left out {out}." if out else ".")


def folder_files(folder: Path, split: str, endings: Collection[str]) -> FolderFiles:
    """The files of `folder` with one of the `endings` that are of `split`.

    Names that begin with a dot or with two underscores, prose (a README, a licence) and the card of a set that emlab
    saved are no data. Raises EmlabError where no file is left.
    """
    wanted = next((name for name, words in SPLITS.items() if split in words), split)
    read, left_out = [], []
    for file in _files(folder, endings):
        within = file.relative_to(folder)
        told = split_of(within) or "train"
        if file.is_dir():
            left_out.append((file, "a link to a folder"))
        elif file.suffix.lower() not in endings:
            left_out.append((file, f"emlab reads {', '.join(endings)}"))
        elif file.name == "card.json" and file.with_name("examples.jsonl").is_file():
            continue  # of a set that emlab saved
        elif file.name in RECORDS:
            left_out.append((file, "a record of the data"))
        elif wanted == told or (wanted not in SPLITS and wanted in _whole_names(within)):
            read.append(file)
        else:
            left_out.append((file, f"by its name of the split {told!r}"))
    found = FolderFiles(folder, tuple(read), tuple(left_out))
    if not read:
        others = "; ".join(dict.fromkeys(f"{file.relative_to(folder)}: {reason}" for file, reason in left_out[:8]))
        raise EmlabError(
            f"{folder} has no data files of the split {split!r} ({others or 'it has no files'}); name a file, another "
            "split, or a folder that has some."
        )
    return found


def split_of(within: Path) -> str | None:
    """The split that a path within a folder tells; None where it tells none, or its name tells several."""
    for name in (within.stem, *reversed(within.parts[:-1])):
        words = set(re.split(r"[^a-z0-9]+", name.lower()))
        told = [split for split, names in SPLITS.items() if words.intersection(names)]
        if len(told) == 1:
            return told[0]
    return None


def _whole_names(within: Path) -> tuple[str, ...]:
    return (_SHARD.sub("", within.stem), *within.parts[:-1])


def _files(folder: Path, endings: Collection[str]) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        names = file.relative_to(folder).parts
        hidden = any(name.startswith((".", "__")) for name in names)
        ending = file.suffix.lower()
        prose = ending == ".md" or (file.stem.lower() in _PROSE and ending not in endings)
        if not (hidden or prose) and (not file.is_dir() or file.is_symlink()):
            yield file
