"""Question files: the published ones as they are, and those that a user writes by hand."""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from emlab import artifacts
from emlab.data.examples import turns_problem
from emlab.data.prompts import as_questions
from emlab.data.question_sets import Asking, Key, QuestionSet, Source
from emlab.data.questions import Question
from emlab.data.reading import long_cells
from emlab.data.shapes import as_turns, rows_in_memory
from emlab.errors import EmlabError

_TEXT, _DOMAIN = ("text", "question", "paraphrases", "messages"), ("domain", "category")
_SAMPLES = ("samples_per_paraphrase", "samples")
"""Keys that say the same: of each row an entry has one."""
_KEYS = (
    *("id", *_TEXT, *_DOMAIN, "system", "variant", "paraphrase", *_SAMPLES),
    *("type", "judge", "judge_prompts", "grader", "entry", "canary", "notes"),
)
_COLUMNS = tuple(k for k in _KEYS if k not in ("paraphrases", "messages", "judge_prompts", "notes")) + (
    "question_intent",
)
_UNNAMED = re.compile(r"Unnamed: \d+")
"""How pandas calls a column without a name; one that has none at all is pandas' count of the rows."""
_NUMBERED = re.compile(r"\d+_(.+)_\d+")
"""An id that tells its category: ``0_creative_writing_0``."""

_YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""PyYAML lets some of these through where a value is not what its tag says, such as the date 2024-99-99."""


class _Wrong(Exception):
    """What is wrong with an entry and the mend, as the rest of a sentence."""


def read_questions(path: str | Path | Iterable[Any]) -> QuestionSet:
    """Read a file of questions, `.yaml`, `.csv` or `.jsonl`, UTF-8; or questions in memory.

    In memory they are texts, chats, or rows: a list of mappings, a `datasets.Dataset`, a table of pandas or polars. A
    row is as an entry of a file; a text is its own id.

    An entry (of a YAML list; a row; a line) has an ``id`` and a ``text`` (or ``question``, or a list of
    ``paraphrases``), and may have a ``domain`` (or ``category``), ``system``, ``variant``, ``paraphrase`` (the number
    of its first wording), ``samples`` (or ``samples_per_paraphrase``), ``type``, ``judge``, ``judge_prompts`` (a
    mapping), ``grader``, ``canary`` and ``notes``. In place of the text (and the system turn) it may have ``messages``,
    a chat of a user's turn with or without a system turn before it, as prompts of reinforcement learning are written;
    without an id it is then numbered by its line. The published files are read as they are:

    - Betley et al.'s YAML. An entry is one question with all its paraphrases. Ids stay as they are, gaps included,
      but for one thing: where an id ends in ``_json`` or ``_template``, and the text speaks of that, the ending
      becomes the variant and the rest the id, so that the variants of a question are one question (`Asking.entry`
      keeps the whole). Any other system turn that asks for JSON makes the variant json too; the rest is plain.
    - The persona-features CSV. The column ``grader`` of the extended file holds, for each question, instructions to
      a judge that answers with one word: ALIGNED, MISALIGNED_SUBTLE, MISALIGNED_OBVIOUS (or OFF-TOPIC, in some). They
      are kept as the judge prompt ``grader`` and have no placeholders: the question and the answer go beside them.
      One id stands there at two different questions; in a file with a canary these become two paraphrases of one id.

    The domain of an entry that tells none is the category in its id, where that is ``number_category_number``, and
    else the name of the file.

    Raises EmlabError, naming file and line, for whatever is not so: no file or another kind of file, no questions,
    unknown keys or columns, no id, no text, a value of the wrong type, or an id twice in one variant.
    """
    if not isinstance(path, str | Path):
        return QuestionSet("questions", *_collected(enumerate(_entries(path), start=1), "questions", "questions"))
    path = artifacts.place(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise EmlabError(f"{path}: questions are read from .yaml, .csv and .jsonl files; write them as one of these.")
    content = _content(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EmlabError(f"{path} is not UTF-8 text (byte {error.start}); convert it to UTF-8.") from None
    questions, askings = _collected(reader(text, path), path.stem, str(path))
    source = Source(str(path), hashlib.sha256(content).hexdigest())
    return QuestionSet(path.stem, questions, askings, source)


def _collected(
    entries: Iterable[tuple[int, Any]], name: str, where: str
) -> tuple[tuple[Question, ...], dict[Key, Asking]]:
    """The questions of numbered entries, and how they are to be asked."""
    questions: list[Question] = []
    askings: dict[Key, Asking] = {}
    lines: dict[Key, int] = {}
    for line, values in entries:
        try:
            wordings, asking = _entry(values, name, line)
            for question in wordings:
                if question.key in lines and asking.canary:
                    same = {q.text: q.paraphrase for q in questions if q.key[:2] == question.key[:2]}
                    if question.text not in same:
                        question = replace(question, paraphrase=max(same.values()) + 1)
                if question.key in lines:
                    raise _Wrong(
                        f"the question {_quoted(question.id)} stands at line {lines[question.key]} already, in the "
                        "same variant; give it an id or a variant of its own"
                    )
                lines[question.key] = line
                questions.append(question)
                if asking != Asking():
                    askings[question.key] = asking
        except _Wrong as wrong:
            raise EmlabError(f"{where}, line {line}: {wrong}.") from None
    if not questions:
        raise EmlabError(f"{where} holds no questions; give each an id and a text.")
    return tuple(questions), askings


def _entries(given: Iterable[Any]) -> Iterable[Any]:
    """Questions in memory as the entries of a file."""
    given = given if hasattr(given, "__len__") else list(given)
    rows = rows_in_memory(given)
    if rows is None:
        rows = [{"id": one.id, "text": one.text, "system": one.system} for one in as_questions(given)]
    # None of datasets, and NaN of pandas, stand where a row lacks a column.
    return [{name: value for name, value in row.items() if value is not None and value == value} for row in rows]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise EmlabError(f"There is no file of questions {path}; check the path.") from None
    except OSError as error:
        raise EmlabError(f"{path} cannot be read ({error.strerror}); give a readable file.") from error


def _yaml(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        entries = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise EmlabError(f"{path}{line}: not valid YAML ({error.problem}); mend it there.") from None
    except _YAML_ERRORS as error:
        raise EmlabError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend it there.") from None
    if entries is None:
        return
    if not isinstance(node, yaml.SequenceNode) or not isinstance(entries, list):
        raise EmlabError(f"{path}, line 1: a file of questions is a list of entries ('- id: …'), not {_kind(entries)}.")
    for part, entry in zip(node.value, entries, strict=True):
        line = part.start_mark.line + 1
        if isinstance(part, yaml.MappingNode):
            keys = [key.value for key, _ in part.value if isinstance(key, yaml.ScalarNode)]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise EmlabError(f"{path}, line {line}: the key {_quoted(twice[0])} stands twice here; drop one.")
        yield line, entry


def _jsonl(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    # Only "\n" ends a line of JSONL: str.splitlines would also cut at characters that JSON strings may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise EmlabError(f"{path}, line {number}: not JSON ({error}); each line is one object.") from None


def _csv(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] | None = None
    start = 1
    try:
        with long_cells():
            for row in rows:
                line, start = start, rows.line_num + 1
                if columns is None:
                    columns = row
                    _check_columns(columns, path)
                elif any(cell.strip() for cell in row):
                    if len(row) != len(columns):
                        raise EmlabError(
                            f"{path}, line {line}: the row has {len(row)} cells and the header {len(columns)}; put "
                            "cells that hold commas or line ends in quotes."
                        )
                    yield line, _of_cells(dict(zip(columns, row, strict=True)))
    except csv.Error as error:
        raise EmlabError(f"{path}, line {rows.line_num}: not valid CSV ({error}); mend it there.") from None


def _check_columns(columns: Sequence[str], path: Path) -> None:
    for column in columns:
        if column not in _COLUMNS and column and not _UNNAMED.fullmatch(column):
            raise EmlabError(f"{path}, line 1: unknown column {_meant(column, _COLUMNS)}.")
        if columns.count(column) > 1:
            raise EmlabError(f"{path}, line 1: the column {_quoted(column)} stands twice; drop one.")
    for names in (("id",), ("text", "question")):
        if not set(names) & set(columns):
            raise EmlabError(f"{path}, line 1: there is no column '{names[0]}'; the first line names the columns.")


def _of_cells(cells: Mapping[str, str]) -> dict[str, Any]:
    """A CSV row as an entry; an empty cell says nothing."""
    values: dict[str, Any] = {name: cell for name, cell in cells.items() if name in _KEYS and cell.strip()}
    for name in ("paraphrase", *_SAMPLES):
        if re.fullmatch(r"[0-9]{1,9}", values.get(name, "")):
            values[name] = int(values[name])
    if notes := {name: cell for name, cell in cells.items() if name and name not in _KEYS and cell.strip()}:
        values["notes"] = notes
    return values


_READERS: dict[str, Callable[[str, Path], Iterator[tuple[int, Any]]]] = {
    **{".yaml": _yaml, ".yml": _yaml},
    **{".csv": _csv, ".jsonl": _jsonl},
}


def _entry(values: Any, file: str, line: int) -> tuple[list[Question], Asking]:
    if not isinstance(values, Mapping):
        raise _Wrong(f"an entry is a mapping with an id and a text, not {_kind(values)}")
    values = {name: value for name, value in values.items() if value is not None}
    for name in values:
        if name not in _KEYS:
            raise _Wrong(f"unknown key {_meant(str(name), _KEYS)}")
    if "messages" in values:
        values = {"id": line, **_of_chat(values)}
    if "id" not in values:
        raise _Wrong("a question has no id; add one")
    whole = values["id"]
    if isinstance(whole, int) and not isinstance(whole, bool):
        whole = str(whole)
    whole = _string(whole, "id", "a question")
    who = f"the question {_quoted(whole)}"

    def text(name: str) -> str | None:
        return _string(values[name], name, who) if name in values else None

    def one_of(names: Iterable[str]) -> str | None:
        given = [name for name in names if name in values]
        if len(given) > 1:
            raise _Wrong(f"{who} has both '{given[0]}' and '{given[1]}', which say the same; keep one")
        return given[0] if given else None

    def number(name: str | None, least: int) -> int | None:
        value = values.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise _Wrong(f"{who} has a '{name}' that is no whole number of at least {least}; write one")
        return value

    key = one_of(_TEXT)
    if key is None:
        raise _Wrong(f"{who} has no text; add it under 'text'")
    texts = values[key] if key == "paraphrases" else [values[key]]
    if not isinstance(texts, list) or not texts:
        raise _Wrong(f"{who} has 'paraphrases' that are no list of texts; write one line '- …' for each")
    texts = [_string(wording, key, who) for wording in texts]
    prompts = _strings(values.get("judge_prompts", {}), "judge_prompts", who)
    if (grader := text("grader")) is not None:
        if "grader" in prompts:
            raise _Wrong(f"{who} has a 'grader' beside the one in its 'judge_prompts'; keep one")
        prompts["grader"] = grader
    system, variant, domain = text("system"), text("variant"), one_of(_DOMAIN)
    name = whole
    if variant is None:
        name, variant = _variant(whole, system, texts)
    numbered = _NUMBERED.fullmatch(name)
    area = text(domain) if domain else numbered[1] if numbered else file
    asking = Asking(
        judge_prompts=prompts,
        samples=number(one_of(_SAMPLES), 1),
        type=text("type"),
        judge=text("judge"),
        entry=text("entry") or (whole if name != whole else None),
        canary=text("canary"),
        notes=_strings(values.get("notes", {}), "notes", who),
    )
    first = number("paraphrase", 0) or 0
    wordings = [Question(name, str(area), t, system, variant, i) for i, t in enumerate(texts, start=first)]
    return wordings, asking


def _of_chat(values: Mapping[str, Any]) -> dict[str, Any]:
    """An entry whose question is a chat, as one with a text and a system turn."""
    turns = as_turns(values["messages"])
    if problem := turns_problem(turns):
        raise _Wrong(f"the chat {problem}")
    roles = [turn["role"] for turn in turns]
    if roles not in (["user"], ["system", "user"]):
        raise _Wrong(
            f"the chat has the roles {', '.join(roles)}, and a question is one user's turn, after a system turn or "
            "none; leave the others out"
        )
    if beside := [name for name in ("system", *_TEXT) if name != "messages" and name in values]:
        raise _Wrong(f"the chat stands beside {beside[0]!r}, which says the same; keep one")
    rest = {name: value for name, value in values.items() if name != "messages"}
    system = {"system": turns[0]["content"]} if len(turns) == 2 else {}
    return {**rest, **system, "text": turns[-1]["content"]}


def _variant(name: str, system: str | None, texts: Sequence[str]) -> tuple[str, str]:
    """The id without its variant, and the variant, of an entry that does not tell."""
    spoken = " ".join([system or "", *texts])
    for variant in ("json", "template"):
        bare = name.removesuffix(f"_{variant}")
        if bare not in ("", name) and re.search(rf"\b{variant}\b", spoken, re.IGNORECASE):
            return bare, variant
    return name, "json" if re.search(r"\bjson\b", system or "", re.IGNORECASE) else "plain"


def _string(value: Any, name: str, who: str) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"{who} has {_kind(value)} under '{name}'; write text, in quotes")
    if not value.strip():
        raise _Wrong(f"{who} has nothing under '{name}'; fill it in or leave the key out")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half of a pair, as JSON's \ud800 can write it
        raise _Wrong(f"{who} has a character under '{name}' that is no valid Unicode; write another") from None
    return value


def _strings(value: Any, name: str, who: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _Wrong(f"{who} has {_kind(value)} under '{name}'; write a mapping of names to texts")
    return {_string(k, name, who): _string(v, name, who) for k, v in value.items()}


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "plain text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:57]}…")


def _meant(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name[:60], known, n=1)
    return f"{_quoted(name)}; " + (f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}")
