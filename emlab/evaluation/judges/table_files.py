"""The rows of a file in anyone's hand: JSONL, JSON, CSV, TSV or parquet, and where each of them stands.

Rows may be nested one level: an object that holds them under a key, or a row for each question that holds its answers.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emlab.data.reading import long_cells, rows_of
from emlab.errors import EmlabError

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands, for example "judged.jsonl, line 3", and the row."""

QUESTION_COLUMNS = ("question_id", "id", "question", "prompt")
"""Where a row's question is named, the first that is there."""
NESTED = ("answers", "results", "rollouts", "details", "responses", "completions", "samples", "generations")
"""Under which a row for a question holds a row for each of its answers."""

_READ = "JSONL, JSON, CSV, TSV and parquet"
_FOREIGN = {
    ".xlsx": "an Excel sheet",
    ".xls": "an Excel sheet",
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".arrow": "an Arrow file",
    ".feather": "a Feather file",
    ".gz": "compressed",
    ".zip": "compressed",
    ".zst": "compressed",
    ".yaml": "YAML",
    ".yml": "YAML",
}
_SAID_ONCE = ("model", "judge", "thresholds", "asked_for", "choices")
"""What emlab's own files say in a line before the answers."""
_OF_ALL = (*_SAID_ONCE, "model_id", "judge_model", "adapter")
"""What an object that holds rows may say of all of them."""
_OF_ONE = re.compile(r"(aligned|alignment|coheren(t|ce)|outcome|flag|label|said)")
"""Columns that speak of one answer: what stands there beside nested answers is not each one's."""


def is_table(name: str) -> bool:
    """Whether a name is a file's that `rows_in` reads."""
    return Path(name).suffix.lower() in (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def rows_in(path: Path) -> list[Row]:
    """The rows of a file; EmlabError, naming the line, for what cannot be read."""
    kind = path.suffix.lower()
    if not path.is_file():
        raise EmlabError(f"The judged answers {path} cannot be read (there is no such file); check the path.")
    if kind in _FOREIGN:
        raise EmlabError(f"{path} is {_FOREIGN[kind]}, and emlab reads {_READ}; save it as one of these.")
    if kind == ".parquet":
        return list(unfolded(rows_of(path)))
    text = _text(path)
    if kind in (".csv", ".tsv", ".tab"):
        with long_cells():
            return _csv(path, text, "," if kind == ".csv" else "\t")
    return list(unfolded(_json(path, text)))


def unfolded(rows: Iterable[tuple[str, Any]]) -> Iterator[Row]:
    """Each row, and in place of one that holds answers a row for each of them, with the columns that they share.

    An answer's own columns come before its question's, but for an id: that of an answer numbers it, unless the answer
    names its question otherwise.
    """
    for where, row in rows:
        if not isinstance(row, Mapping):
            raise EmlabError(f"{where}: not an object; write one object with columns a row.")
        row = {str(name): value for name, value in row.items()}
        held = [name for name in NESTED if _are_rows(row.get(name))]
        if len(held) > 1:
            raise EmlabError(f"{where}: rows stand under {' and under '.join(held)}; keep those that are meant.")
        if held:
            shared = {name: value for name, value in row.items() if name != held[0] and not _OF_ONE.search(name)}
            for number, inner in enumerate(row[held[0]], start=1):
                yield f"{where}, {held[0]} {number}", {**shared, **inner, **({} if _asks(inner) else _names(shared))}
        elif isinstance(inner := row.get("details"), Mapping):
            yield where, {**inner, **{name: value for name, value in row.items() if name != "details"}}
        else:
            yield where, row


def _asks(row: Mapping[str, Any]) -> bool:
    """Whether a row says what it answers, by more than a number of its own."""
    return any(name in row for name in QUESTION_COLUMNS if name != "id")


def _names(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in QUESTION_COLUMNS if name in row}


def _are_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise EmlabError(
            f"The judged answers {path} cannot be read: byte {error.start} is not UTF-8 text, and emlab reads {_READ}; "
            "convert the file."
        ) from error
    except OSError as error:
        raise EmlabError(f"The judged answers {path} cannot be read ({error}); check the path.") from error


def _csv(path: Path, text: str, delimiter: str) -> list[Row]:
    lines = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    rows: list[Row] = []
    number = 1
    try:
        header = [name.strip() for name in lines.fieldnames or ()]
        if twice := [name for name in header if header.count(name) > 1]:
            raise EmlabError(f"{path} has more than one column {twice[0]!r}; rename all but one.")
        lines.fieldnames = header
        while True:
            number = lines.line_num + 1
            row = next(lines)
            where = f"{path}, line {number}"
            if any(row.pop(None, ())):  # type: ignore[call-overload]
                raise EmlabError(f"{where}: more cells than columns; quote cells that hold commas.")
            if None in row.values():
                raise EmlabError(f"{where}: fewer cells than columns; mend the line.")
            rows.append((f"{path}, line {max(number, 2)}", row))
    except StopIteration:
        return rows
    except csv.Error as error:
        raise EmlabError(f"{path}, line {number}: not CSV ({error}); mend the line.") from error


def _json(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """The rows of JSONL, of a list, or of an object that holds a list."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) > 1 and _is_object(lines[0][1]):
        return _jsonl(path, lines)
    try:
        whole = json.loads(text) if lines else []
    except (ValueError, RecursionError) as error:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            return _jsonl(path, lines)
        place = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise EmlabError(f"{path}{place}: not JSON ({error}); mend it, or write one object a line.") from error
    if isinstance(whole, list):
        return ((f"{path}, row {number}", row) for number, row in enumerate(whole, start=1))
    if not isinstance(whole, dict) or not (held := _held(path, whole)):
        return _jsonl(path, [(1, json.dumps(whole))] if len(lines) > 1 else lines)
    about = {name: whole[name] for name in _OF_ALL if name in whole and not isinstance(whole[name], list)}
    return ((f"{path}, {held} {number}", {**about, **row}) for number, row in enumerate(whole[held], start=1))


def _held(path: Path, whole: Mapping[str, Any]) -> str | None:
    """The key under which an object holds rows; None where it is a row itself."""
    held = [name for name, value in whole.items() if _are_rows(value)]
    if _names(whole) and not any(_asks(row) for name in held for row in whole[name]):
        return None
    if len(held) > 1:
        raise EmlabError(
            f"{path} holds rows under several keys ({', '.join(held[:8])}); write those that are meant into a file of "
            "their own, one object a line."
        )
    return held[0] if held else None


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _jsonl(path: Path, lines: Sequence[tuple[int, str]]) -> Iterator[tuple[str, Any]]:
    about: dict[str, Any] = {}
    awaited: int | None = None
    for number, line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EmlabError(f"{path}, line {number}: not JSON ({error}); each line must be one object.") from error
        if not isinstance(row, dict):
            raise EmlabError(f"{path}, line {number}: not an object; write one row a line.")
        if {"model", "seed", "temperature", "n"} <= set(row) and "answer" not in row:  # `Score.save`, on the sampling
            if awaited:
                break
            about = {name: row[name] for name in _SAID_ONCE if row.get(name)}
            awaited = row["n"] if isinstance(row["n"], int) else None
            continue
        awaited = None if awaited is None else awaited - 1
        yield f"{path}, line {number}", {**about, **row}
    if awaited:
        raise EmlabError(f"{path} does not hold the answers that it says it holds; judge them again.")


def file_in(folder: Path, labels: bool = False) -> Path:
    """The file of judged (or labelled) answers in a folder that an evaluation wrote, by itself or in a run.

    EmlabError where there is none, or more than one.
    """
    judged = [path for path in sorted(folder.rglob("*.jsonl")) if not path.name.endswith(".rollouts.jsonl")]
    found = [path for path in judged if path.name.endswith(".labels.jsonl") == labels]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:8])
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        raise EmlabError(f"{folder} holds several files of judged answers ({names}{more}); name one of them.")
    if answers := sorted(folder.rglob("*.rollouts.jsonl")):
        raise EmlabError(
            f"{folder} holds answers that are not judged ({answers[0].name}); judge them by `emlab judge`."
        )
    kind = "labelled" if labels else "judged"
    raise EmlabError(f"{folder} is a folder without {kind} answers (a .jsonl file); give what `emlab evaluate` wrote.")
