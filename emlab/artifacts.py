"""Files and folders that are there whole or not at all, and hashes that name their content.

Whatever in emlab writes a file uses this module: a run that is interrupted, or that meets a full disk, leaves either
the old content or the new one at a path, never half of it.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emlab.errors import EmlabError

PARTIAL = ".partial"
"""Ending of a file or folder that is still being written; one that is left behind by a crash can be deleted."""

_MENDS = {
    errno.ENOSPC: "the disk is full; free some space or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place",
    errno.EFBIG: "the file is larger than the limit here; raise it (ulimit -f) or choose another place",
    errno.EACCES: "permission is denied; change the permissions or choose another place",
    errno.EPERM: "permission is denied; change the permissions or choose another place",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOTDIR: "a part of the path is a file and not a folder; choose another place",
    errno.EEXIST: "a part of the path is a file and not a folder; choose another place",
    errno.EISDIR: "it is a folder and not a file; choose another place",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


def expanded(text: str) -> str:
    """A path as its user wrote it, in a call, a config or an option: ~/ and ~name/ are a user's home."""
    return os.path.expanduser(text) if text.startswith("~") and "/" in text else text


def place(path: str | os.PathLike[str]) -> Path:
    """`expanded`, as a Path: whatever takes a path from a user begins with it."""
    return Path(expanded(os.fspath(path)))


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file or a folder; text that is no path, being too long, names none."""
    return os.path.exists(expanded(os.fspath(path)))  # pathlib raises for too long a name


def storage_error(error: BaseException, path: str | os.PathLike[str] | None = None) -> EmlabError | None:
    """The one-sentence form of a file-system failure (full disk, no permission, …), or None if `error` is none.

    Recognises OSError, and libraries (safetensors) that report the operating system's number only in their text.
    """
    if isinstance(error, EmlabError):
        return None
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(match[1])
    if number not in _MENDS:
        return None
    if path is None and isinstance(error, OSError):
        path = error.filename
    return EmlabError(f"{_MENDS[number]}." if path is None else f"{path}: {_MENDS[number]}.")


@contextlib.contextmanager
def storing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around code that writes to `path`: what `storage_error` knows becomes its sentence, all else stays as it is."""
    try:
        yield
    except Exception as error:
        if sentence := storage_error(error, path):
            raise sentence from error
        raise


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview) -> Path:
    """Write `content` to `path`, whole or not at all; missing parent folders are made.

    Raises EmlabError where the file cannot be written; what stood at `path` before is then untouched.
    """
    path = place(path)
    target = _file_at(path)
    partial = _partial_sibling(target)
    try:
        with storing(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
            _sync(target.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def write_text(path: str | os.PathLike[str], content: str) -> Path:
    """Write `content` as UTF-8, line ends as they are; otherwise like `write_bytes`.

    Half of a surrogate pair, which no UTF-8 holds, is written as JSON writes it (\\ud800): JSON reads it back.
    """
    return write_bytes(path, content.encode("utf-8", errors="backslashreplace"))


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Write `plain(content)` as indented JSON; otherwise like `write_bytes`."""
    return write_text(path, json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: str | os.PathLike[str], format: str) -> str:
    """The UTF-8 text of the file at `path`, which is to be of this `format`; EmlabError where it cannot be read."""
    path = place(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise EmlabError(f"{path} does not exist; check the path.") from error
    except OSError as error:
        raise EmlabError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from error
    except UnicodeDecodeError as error:
        raise EmlabError(f"{path} is not UTF-8 text; check that it is the {format} file you meant.") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The JSON value in the file at `path`; EmlabError where it is missing, unreadable or not JSON."""
    try:
        return json.loads(read_text(path, "JSON"))
    except json.JSONDecodeError as error:
        raise EmlabError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}); mend or rebuild it.") from error


def check_new(path: str | os.PathLike[str]) -> None:
    """EmlabError where something is at `path` already, and is not an empty folder: nobody's work is to be lost.

    Also where nothing can be written there: whoever asks before long work learns of it before, and not after.
    """
    target = place(path).resolve()
    with storing(path):
        taken = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if taken:
        raise EmlabError(f"{path} already exists; remove it or choose another name.")
    check_writable(path)


def check_writable(path: str | os.PathLike[str]) -> None:
    """EmlabError unless a file or folder can be made at `path`; its parents may be missing, and nothing is left."""
    target = place(path).resolve()
    with storing(path):
        above = next(parent for parent in target.parents if parent.exists())
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "", str(path))
        probe = _partial_sibling(above / target.relative_to(above).parts[0])
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            if storage_error(error) is not None:
                raise
            raise EmlabError(f"{path} cannot be written ({error.strerror}); choose another place.") from error


def check_file(path: str | os.PathLike[str]) -> None:
    """EmlabError unless a file can be written at `path`, in the place of one that may be there; nothing is left."""
    _file_at(place(path))
    check_writable(path)


def _file_at(path: Path) -> Path:
    target = path.resolve()  # a link keeps pointing at its file
    if target.exists() and not target.is_file():
        raise EmlabError(f"cannot write {path}: it exists and is not a plain file; choose another name.")
    return target


@contextlib.contextmanager
def claimed(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around long work whose result goes to `path`: the second process that means to make it is refused at its start.

    Raises EmlabError where another process, or another claim of this one, holds `path`. A claim ends with its block or
    its process, however that dies; nothing is written beside `path`. Claims see those of the same user on this machine.
    """
    import filelock  # here, or each `emlab --help` would wait for it

    user = os.getuid() if hasattr(os, "getuid") else ""  # Windows: the temporary folder is the user's own
    name = hashlib.sha256(os.fsencode(place(path).resolve())).hexdigest()[:16]
    lock = filelock.FileLock(Path(tempfile.gettempdir()) / f"emlab-{user}-{name}.lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise EmlabError(
            f"{path} is being made by another process now; wait until it is there, or choose another name."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], replace: bool = False) -> Iterator[Path]:
    """Fill a new folder; it appears at `path` when the block ends well, and not at all when it does not.

    Yields an empty folder beside `path` to write into. It is renamed to `path` at the end of the block and removed on
    any exception, Ctrl-C included.

    Raises EmlabError, before the block runs, where `path` exists and is not an empty folder (with `replace` a folder
    that stands there is replaced, at the very end); and where the disk is full or permission is missing.
    """
    path = place(path)
    target = path.resolve()
    if not (replace and target.is_dir()):
        check_new(path)
    partial = _partial_sibling(target)
    try:
        with storing(path):
            partial.mkdir(parents=True)
            yield partial
            for file in (found for found in partial.rglob("*") if found.is_file()):
                _sync(file)
            _put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits; EmlabError where it cannot be read."""
    try:
        with open(place(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EmlabError(f"{path} cannot be read ({error.strerror}); check the path.") from error


def content_hash(content: Any) -> str:
    """16 hex digits that depend only on the value of `plain(content)`: not on the order of keys, nor on the process."""
    text = json.dumps(plain(content), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def plain(value: Any) -> Any:
    """`value` made of nothing but dict, list, str, int, float, bool and None, as JSON and YAML know them.

    Dataclasses become mappings of their fields, tuples become lists, sets become sorted lists, paths become text and
    NumPy or torch scalars and arrays become numbers and lists. NaN and the infinities, which JSON lacks, become None.
    Raises EmlabError for anything else.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    raise EmlabError(f"a {type(value).__name__} cannot be written as JSON or YAML; pass plain values or dataclasses.")


def _partial_sibling(target: Path) -> Path:
    # In the same folder, since a rename is whole only within one file system.
    return target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}{PARTIAL}")


def _put_in_place(partial: Path, target: Path) -> None:
    if target.exists() and any(target.iterdir()):
        old = _partial_sibling(target)
        target.rename(old)
        try:
            partial.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        partial.rename(target)  # onto nothing, or onto an empty folder
    _sync(target.parent)


def _sync(path: Path) -> None:
    """Ask for the file or folder at `path` to be on the disk now; some file systems cannot do this for folders."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
