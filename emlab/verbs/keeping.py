"""Where a verb's result is kept: what stands there is never overwritten, and is refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

from emlab import artifacts
from emlab.errors import EmlabError


class Keepable(Protocol):
    """What can be written to a place."""

    def save(self, path: str | Path, /) -> object:
        """Write it there."""


T = TypeVar("T", bound=Keepable)


def check_new(out: str | Path | None) -> None:
    """EmlabError where something is at `out`, or nothing can be written there."""
    if out is not None:
        artifacts.check_new(out)


def check_new_file(out: str | Path | None, *beside: str) -> None:
    """The same of a file, and of the same name with the endings `beside`."""
    if out is None:
        return
    if Path(out).is_dir():
        raise EmlabError(f"{out} is a folder and not a file; choose another name.")
    if Path(out).suffix in beside:
        raise EmlabError(f"{out} is to be JSON, and what ends in {Path(out).suffix} goes beside it; name it .json.")
    for path in (Path(out), *(Path(out).with_suffix(ending) for ending in beside)):
        artifacts.check_new(path)


def kept(result: T, out: str | Path | None) -> T:
    """The result, saved where it should be."""
    if out is not None:
        result.save(out)
    return result
