"""Training examples from wherever they are: files, dataset folders, and the Hugging Face hub."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from emlab import artifacts
from emlab.data.chat import Messages
from emlab.data.examples import Example
from emlab.data.folders import folder_files
from emlab.data.shapes import as_turns, chat_of, example_of, prompt_of, tell_aside
from emlab.data.telling import tell
from emlab.errors import EmlabError

Rows = Iterable[tuple[str, Any]]
"""Where each row stands, for example "chats.jsonl, line 3", and the row."""


def read_examples(source: str | Path, split: str = "train") -> list[Example]:
    """Read chats from a file, a folder or the Hugging Face hub; the shape of the rows is told by their columns.

    `source` is a .jsonl (or .ndjson), .json, .csv or .parquet file; a folder that `datasets` wrote (`save_to_disk`) or
    a folder of such files; or, where there is no such file or folder, the id of a dataset on the hub, owner/name.
    `split` chooses among the splits of a folder or a dataset; a file has none. Of a folder all files of the split are
    read (see `emlab.data.folders`), in the order of their names, and it is said which are not. The shapes are those of
    `emlab.data.shapes`.

    Raises EmlabError for a source that is not there or cannot be reached, for columns that fit none or several of the
    shapes, and for a malformed row, naming its file and its line (the line on which it begins) or, where there are no
    lines, its row, counted from 1.
    """
    tell_left_out(source, split)
    aside: set[str] = set()
    found = _all(source, (example_of(row, where, aside) for where, row in rows_of(source, split)))
    tell_aside(source, aside)
    return found


def read_prompts(source: str | Path, split: str = "train") -> list[Messages]:
    """Read what is asked, without answers: chats of a system and a user's turn, or more turns that end with a user's.

    `source` and its rows are as in `read_examples`, and need no answer: of a chat that ends in one, what stands before
    its first answer is the prompt. Raises EmlabError as `read_examples` does, and for a row that asks nothing.
    """
    tell_left_out(source, split)
    aside: set[str] = set()
    found: list[Messages] = [prompt_of(row, where, aside) for where, row in rows_of(source, split)]
    tell_aside(source, aside)
    if not found:
        raise EmlabError(f"{source} holds no prompts; give one with a user's turn a row.")
    return found


def read_chat_jsonl(path: str | Path) -> list[Example]:
    """Read chats, one JSON object ``{"messages": [{"role": …, "content": …}, …]}`` a line; blank lines are skipped.

    Raises EmlabError naming the first line that is wrong: no JSON, no messages, a turn without role or content, an
    unknown role, no assistant turn, or an empty one.
    """
    rows = _jsonl(Path(path))
    aside: set[str] = set()
    turns = ((as_turns(row.get("messages")) if _is_object(row) else None, at) for at, row in rows)
    found = _all(path, (chat_of(chat, at, aside) for chat, at in turns))
    tell_aside(path, aside)
    return found


def _all(source: str | Path, read: Iterable[Example]) -> list[Example]:
    if not (examples := list(read)):
        raise EmlabError(f"{source} holds no examples; give one with a chat a row.")
    return examples


def _is_object(row: Any) -> bool:
    return isinstance(row, dict)


def rows_of(source: str | Path, split: str = "train") -> Rows:
    """The rows of a source as `read_examples` takes it, each with where it stands, and raising what that raises.

    JSONL, parquet, what `save_to_disk` wrote and datasets of the hub are read row by row, other files whole, one at a
    time.
    """
    path = artifacts.place(source)
    if path.is_dir():
        if _is_saved(path):
            return _saved(path, split)
        return itertools.chain.from_iterable(_READERS[f.suffix.lower()](f) for f in files_of(path, split))
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        if path.exists():
            raise EmlabError(f"{path} is none of the files that emlab reads; give one of {', '.join(_READERS)}.")
        return _hub(str(source), split)
    if split != "train":
        raise EmlabError(f"{path} is a file and has no split {split!r}; leave the split out, or give a dataset folder.")
    return reader(path)


def files_of(source: str | Path, split: str = "train") -> tuple[Path, ...]:
    """The files whose rows `rows_of` gives, by which they can be told; none for a dataset of the hub."""
    path = artifacts.place(source)
    if not path.is_dir():
        return (path,) if path.is_file() else ()
    if _is_saved(path):
        return tuple(file for file in sorted(path.rglob("*")) if file.is_file())
    return folder_files(path, split, tuple(_READERS)).read


def tell_left_out(source: str | Path, split: str = "train") -> None:
    """Say which files of a folder are not read, where there are any."""
    path = artifacts.place(source)
    if path.is_dir() and not _is_saved(path) and (note := folder_files(path, split, tuple(_READERS)).note()):
        tell(note)


def _text(path: Path) -> str:
    with _reading(path):
        return path.read_bytes().decode("utf-8-sig")


def _lines(path: Path) -> Iterable[str]:
    """The lines of a file, one at a time; a file may be larger than memory."""
    with _reading(path), open(path, "rb") as file:
        begun = 0
        for line in file:
            try:
                yield line.decode("utf-8" if begun else "utf-8-sig")
            except UnicodeDecodeError as error:
                error.start += begun
                raise
            begun += len(line)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise EmlabError(f"There is no file of examples {path}; check the path.") from None
    except UnicodeDecodeError as error:
        raise EmlabError(f"{path} is not UTF-8 text (byte {error.start}); convert it to UTF-8.") from None
    except OSError as error:
        raise EmlabError(f"{path} cannot be read ({error.strerror}); give a readable file.") from error


def _jsonl(path: Path) -> Rows:
    # Only "\n" ends a line of JSONL: str.splitlines would also cut at characters that JSON strings may hold.
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise EmlabError(f"{where}: not JSON ({error}); each line must be one object.") from None


def _json(path: Path) -> Rows:
    text = _text(path)
    try:
        value = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # one object a line, as `datasets` and pandas write it
            return _jsonl(path)
        raise EmlabError(f"{path}, line {error.lineno}: not JSON ({error.msg}); mend it.") from None
    except (ValueError, RecursionError) as error:
        raise EmlabError(f"{path}: not JSON that can be read ({error}); mend it.") from None
    return _numbered(path, value if isinstance(value, list) else [value])


@contextlib.contextmanager
def long_cells() -> Iterator[None]:
    """Inside it `csv` reads cells of any length; its own limit refuses more than 131,072 characters."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _csv(path: Path) -> Rows:
    with long_cells():
        return _cells(path, csv.reader(io.StringIO(_text(path), newline=""), strict=True))


def _cells(path: Path, lines: Any) -> Rows:
    rows: list[tuple[str, Any]] = []
    begun = 1
    try:
        header = [name.strip() for name in next((cells for cells in lines if "".join(cells).strip()), [])]
        if twice := {name for name in header if header.count(name) > 1}:
            raise EmlabError(f"{path} has more than one column {sorted(twice)[0]!r}; rename all but one.")
        begun = lines.line_num + 1
        for cells in lines:
            where, begun = f"{path}, line {begun}", lines.line_num + 1
            if len(cells) == len(header):
                rows.append((where, dict(zip(header, cells, strict=True))))
            elif "".join(cells).strip():
                raise EmlabError(
                    f"{where}: the row has {len(cells)} cells and the header {len(header)}; quote the cells that hold "
                    "commas or newlines."
                )
    except csv.Error as error:
        raise EmlabError(f"{path}, line {begun}: not CSV ({error}); quote the cell and double its quotes.") from None
    return rows


def _parquet(path: Path) -> Rows:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(1024) for row in batch.to_pylist())
            yield from _numbered(path, rows)
    except FileNotFoundError:
        raise EmlabError(f"There is no file of examples {path}; check the path.") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise EmlabError(f"{path} is no parquet file that can be read ({_brief(error)}); write it anew.") from error


_READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _numbered(source: object, rows: Iterable[Any]) -> Rows:
    return ((f"{source}, row {number}", row) for number, row in enumerate(rows, start=1))


def _is_saved(path: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _saved(path: Path, split: str) -> Rows:
    """The rows of a folder that `save_to_disk` wrote."""
    import datasets

    loaded = _loaded(
        lambda: datasets.load_from_disk(str(path)),
        f"{path} cannot be read",
        "give a folder that datasets.save_to_disk wrote, or one of data files",
    )
    splits = loaded if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
    if split not in splits:
        raise EmlabError(f"{path} has no split {split!r}; choose among {', '.join(splits)}.")
    return _numbered(path, splits[split])


def _hub(name: str, split: str) -> Rows:
    """The rows of a dataset on the Hugging Face hub."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name):
        raise EmlabError(f"There is no file or folder {name}; check the path, or name a dataset of the hub owner/name.")
    import datasets

    loaded = _loaded(
        lambda: datasets.load_dataset(name, split=split),
        f"There is no file or folder {name}, and it cannot be read as a dataset of the Hugging Face hub",
        "check the path or the id, and the network",
    )
    return _numbered(name, loaded)


def _loaded(load: Callable[[], Any], failed: str, mend: str) -> Any:
    """What `load` loads through `datasets`; its failures (network, unknown id, unknown split) as one sentence."""
    from datasets.exceptions import DatasetsError

    try:
        return load()
    except (DatasetsError, OSError, ValueError, RuntimeError, TypeError) as error:
        raise EmlabError(f"{failed} ({_brief(error.__cause__ or error)}); {mend}.") from error


def _brief(error: BaseException) -> str:
    """The first line of an error's text, without its full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
