"""A file of finished results by key (SQLite), so that what was computed or paid for once is never asked for again.

A process that is killed loses none of what `put` took; a power cut may cost the last few results. Several processes may
use one file at a time.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from emlab import artifacts
from emlab.errors import EmlabError

_BEGIN = b"SQLite format 3\0"
"""The first bytes of every SQLite file."""
WAIT = 60
"""Seconds to wait for other processes that use the file."""


class Store:
    """A mapping of str to plain JSON values, kept in the file `path`. Use it in a ``with`` block, or close it."""

    def __init__(self, path: str | Path) -> None:
        """Open or create the file. EmlabError where it is damaged or something else: it is then left as it is."""
        self.path = artifacts.place(path)
        with artifacts.storing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            there = self.path.is_file() and self.path.stat().st_size > 0
        # sqlite3 lets threads share a connection, but not two transactions on it at a time.
        self._lock = threading.Lock()
        with self._naming_errors():
            if there and not self._begins_as_one():
                raise EmlabError(
                    f"{self.path} is no store: it is another kind of file, or its beginning is lost; give the store "
                    "another name."
                )
            if there:
                self._check()
            self._db = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
            try:
                self._write_ahead()
                # No wait for the disk with every result: a power cut may cost the last few, a killed process none.
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute("CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            except BaseException:
                self._db.close()
                raise

    def _write_ahead(self) -> None:
        """Let the file be written ahead of; where another process is in the middle of the same, wait for it.

        SQLite does not wait by itself here: both may have begun to read, and would wait for each other.
        """
        give_up = time.monotonic() + WAIT
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
            time.sleep(0.01)

    def _begins_as_one(self) -> bool:
        """Whether the file begins as SQLite's do; what is shorter may be one that was cut off."""
        with artifacts.storing(self.path), self.path.open("rb") as file:
            start = file.read(len(_BEGIN))
        return start == _BEGIN[: len(start)]

    def _check(self) -> None:
        """Raise what is wrong with the file, through a connection that cannot write to it, not even by closing it."""
        db = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", timeout=WAIT, uri=True)
        with contextlib.closing(db):
            if [row[0] for row in db.execute("PRAGMA quick_check(1)")] != ["ok"]:
                raise sqlite3.DatabaseError("its pages do not fit together")
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            columns = [row[1] for row in db.execute("PRAGMA table_info(results)")]
        if tables and columns != ["key", "value"]:
            raise EmlabError(f"{self.path} is a database of something else; give the store another name.")

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those of `keys` that are there."""
        found = {}
        with self._naming_errors():
            for key in keys:
                row = self._db.execute("SELECT value FROM results WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = json.loads(row[0])
        return found

    def put(self, values: Mapping[str, Any]) -> None:
        """Write all of `values`, or none of them."""
        # In ASCII: SQLite takes no lone surrogates, which half an emoji in an answer is.
        rows = [(key, json.dumps(artifacts.plain(value))) for key, value in values.items()]
        with self._lock, self._naming_errors():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT OR REPLACE INTO results VALUES (?, ?)", rows)
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.rollback()
                raise

    def __len__(self) -> int:
        with self._naming_errors():
            return self._db.execute("SELECT count(*) FROM results").fetchone()[0]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # used after it was closed
        except sqlite3.OperationalError as error:
            raise EmlabError(
                f"The store {self.path} cannot be used ({error}); check the disk and permissions."
            ) from error
        except (sqlite3.DatabaseError, ValueError) as error:
            raise EmlabError(
                f"The store {self.path} is damaged ({error}); what can still be read of it goes into a new file by "
                f"emlab.store.salvage({str(self.path)!r}, new_path)."
            ) from error


def salvage(damaged: str | Path, path: str | Path) -> int:
    """Copy what can still be read of a damaged store into the new file `path`, and say how many results that is.

    The damaged file stays as it is. EmlabError where `path` is there already, or nothing can be read.
    """
    damaged = Path(damaged)
    if not damaged.is_file():
        raise EmlabError(f"There is no store {damaged}; check the path.")
    if Path(path).exists():
        raise EmlabError(f"{path} already exists; give the name of a new file to salvage into.")
    with tempfile.TemporaryDirectory() as folder, artifacts.storing(damaged):
        copy = Path(folder) / "copy"
        shutil.copyfile(damaged, copy)
        # What a killed process wrote last stands in a file beside it.
        log = damaged.with_name(damaged.name + "-wal")
        if log.is_file():
            shutil.copyfile(log, copy.with_name("copy-wal"))
        found = _readable(copy)
    if not found:
        raise EmlabError(f"Nothing can be read of {damaged}; start with a new store.")
    with Store(path) as store:
        store.put(found)
    return len(found)


def _readable(path: Path) -> dict[str, Any]:
    """All results that can be read of the damaged file, which may be written to."""
    found: dict[str, Any] = {}
    # No row is shorter than 16 bytes; those that were replaced have left gaps.
    most = 2 * path.stat().st_size // 16
    with contextlib.closing(sqlite3.connect(path)) as db:
        try:
            db.execute("PRAGMA writable_schema=ON")  # or SQLite refuses a file that was cut short
            db.execute("SELECT rowid FROM results LIMIT 0")
        except sqlite3.DatabaseError:
            return found
        after, ended = 0, False
        while not ended and after < most:
            try:
                for rowid, key, value in db.execute(
                    "SELECT rowid, key, value FROM results NOT INDEXED WHERE rowid > ? ORDER BY rowid", (after,)
                ):
                    after = rowid
                    with contextlib.suppress(ValueError, TypeError):
                        found[key] = json.loads(value)
                ended = True
            except sqlite3.DatabaseError:
                after += 1  # a row on a lost page: it must not take the others with it
    return found
