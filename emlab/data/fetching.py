"""Fetching the published narrow datasets and question files.

None of these files comes with emlab. A download is kept only where it is the file that the catalogue describes; of a
file whose checksum the catalogue does not know, the checksum of what came is written beside it, which tells later that
the file is still the same, and not that it is the right one.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from emlab import artifacts
from emlab.data.catalogue import PUBLISHED
from emlab.data.published import Catalogue, Published
from emlab.data.telling import tell
from emlab.errors import EmlabError

RECORD = "source.json"
"""The file beside a download that says where it is from, and its checksum."""

_TIMEOUT, _BLOCK = 60, 1 << 20


def list_published() -> Catalogue:
    """All that the catalogue knows; print it for a table."""
    return PUBLISHED


def get(name: str, folder: str | Path = "data", catalogue: Catalogue | None = None) -> Path:
    """The published file `name`, in `folder`/`name`/; it is downloaded unless it is there already.

    The download is streamed to the disk, checked for size and checksum, and put in place whole or not at all, with
    its origin in `source.json`. What is not verified, since the catalogue has no checksum, is said on the terminal.

    Raises EmlabError for an unknown name; where there is no network, the server refuses, or the download is cut short,
    naming the address, the place, the size and the licence; where what came, or what stands at the place, is not the
    published file.
    """
    entry = (catalogue or list_published())[name]
    folder = artifacts.place(folder)
    place = folder / entry.name
    file = place / entry.file
    if file.is_file():
        return _kept(entry, file)
    fresh = not Path(folder).exists()
    try:
        with artifacts.new_folder(place) as new:
            checksum, size = _download(entry, file, new / entry.file)
            _verify(entry, checksum, size, f"What came from {entry.url}", "try again, or ask its authors what changed")
            artifacts.write_json(new / RECORD, _record(entry, checksum, size))
    except BaseException:
        if fresh:
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        raise
    if entry.sha256 is None:
        tell(f"{file}: SHA-256 {checksum}, written down and not verified: the catalogue has no checksum of it.")
    if entry.note:
        tell(f"{file}: {entry.note}")
    return file


def _kept(entry: Published, file: Path) -> Path:
    """The file that is there already, verified by the catalogue or, where that knows no checksum, by its record."""
    checksum, size = artifacts.sha256(file), file.stat().st_size
    mend = "move it away, or choose another folder"
    _verify(entry, checksum, size, f"{file} is there already, and", mend)
    record = file.parent / RECORD
    if entry.sha256 is None and not record.is_file():
        artifacts.write_json(record, _record(entry, checksum, size))
        tell(f"{file}: SHA-256 {checksum}, written down and not verified: the catalogue has no checksum of it.")
    elif entry.sha256 is None:
        known = artifacts.read_json(record)
        if (known.get("sha256") if isinstance(known, dict) else None) != checksum:
            raise EmlabError(f"{file} is not the file that was downloaded (see {record}); {mend}.")
    return file


def _verify(entry: Published, checksum: str, size: int, what: str, mend: str) -> None:
    if entry.bytes is not None and size != entry.bytes:
        raise EmlabError(f"{what} has {size:,} bytes and the published file has {entry.bytes:,}; {mend}.")
    if entry.sha256 is not None and checksum != entry.sha256:
        raise EmlabError(f"{what} has the SHA-256 {checksum} and the published file has {entry.sha256}; {mend}.")


def _record(entry: Published, checksum: str, size: int) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    about = {"name": entry.name, "url": entry.url, "licence": entry.licence, "note": entry.note}
    return {**about, "sha256": checksum, "bytes": size, "verified": entry.sha256 is not None, "retrieved": now}


def _download(entry: Published, place: Path, to: Path) -> tuple[str, int]:
    """Stream the file to `to`; its SHA-256 and size. `place` is where it would end up, for the sentence of an error."""
    request = urllib.request.Request(entry.url, headers={"User-Agent": "emlab"})
    digest, size = hashlib.sha256(), 0
    with _reaching(entry, place), urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        expected = answer.headers.get("Content-Length")
        with artifacts.storing(to), open(to, "wb") as file:
            for block in _blocks(answer):
                file.write(block)
                digest.update(block)
                size += len(block)
        if expected is not None and expected.isdigit() and size != int(expected):
            raise http.client.IncompleteRead(b"", int(expected) - size)
    return digest.hexdigest(), size


def _blocks(answer: IO[bytes]) -> Iterator[bytes]:
    while block := answer.read(_BLOCK):
        yield block


@contextlib.contextmanager
def _reaching(entry: Published, place: Path) -> Iterator[None]:
    """A failure of the network as one sentence that says what would have been fetched."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            why = f"the server answered {error.code} {error.reason}"
        elif isinstance(error, http.client.IncompleteRead):
            why = f"the connection ended {error.expected:,} bytes too early"
        else:
            why = str(getattr(error, "reason", None) or error) or type(error).__name__
        raise EmlabError(
            f"{entry.name} could not be fetched ({why}): {entry.url} ({entry.size}, licence {entry.licence}) would "
            f"have gone to {place}; try again with a network, or fetch it elsewhere and put it there."
        ) from error
