"""A language model as judge by labels, in the words of the question file; and labels read from a file.

A judge prompt of a published question of type ``free_form_judge`` (``correct``, ``company``) names the labels in double
quotes: «Say "TRUE" or "FALSE" only.» These are what its reply may be. A reply that begins with none of them, or names
two, is a failure, and its text is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emlab import artifacts
from emlab.data.question_sets import Key
from emlab.data.questions import Question
from emlab.errors import EmlabError
from emlab.evaluation.judges import prompts, tables
from emlab.evaluation.judges.asking import ModelJudge
from emlab.evaluation.judges.registry import Judging, Questions, judging_method, methods
from emlab.evaluation.judges.replies import only_label, unread
from emlab.evaluation.judges.table_files import file_in, is_table
from emlab.evaluation.judges.tables import Lookup
from emlab.evaluation.labelling import Label, Labelled
from emlab.evaluation.rollouts import Rollouts
from emlab.models.completion import Completer, Completion

_QUOTED = re.compile(r'"([^"\n{}]{1,60})"')


def labels_asked_for(given: Mapping[Key, Mapping[str, str]]) -> list[str]:
    """The names of the prompts that ask for labels, among the judge prompts of a question set."""
    names, others = (name for each in given.values() for name in each), {p for one in methods() for p in one.prompts}
    return [name for name in dict.fromkeys(names) if name not in others]


@dataclass(frozen=True)
class LabelJudge(ModelJudge):
    """Labels each answer by the prompt of its own question."""

    prompts: Mapping[Key, Mapping[str, str]]
    """`QuestionSet.judge_prompts`: each question's prompts by name."""
    asked_for: str
    """The name of the prompt to ask."""

    def __post_init__(self) -> None:
        if not self.choices:
            raise EmlabError(f"No question brings a judge prompt {self.asked_for!r}; take questions that do.")

    @property
    def name(self) -> str:
        """The model, the prompt, and which file's."""
        used = sorted((key, each[self.asked_for]) for key, each in self.prompts.items() if self.asked_for in each)
        return (
            f"{self.by.name} by label, the question file's prompt {self.asked_for} ({artifacts.content_hash(used)[:8]})"
        )

    @property
    def choices(self) -> tuple[str, ...]:
        """The labels of all the prompts, each once."""
        texts = dict.fromkeys(each[self.asked_for] for each in self.prompts.values() if self.asked_for in each)
        return tuple(dict.fromkeys(label for text in texts for label in _choices(text)))

    def prompt(self, question: Question, answer: str) -> str:
        """The question's own prompt, filled in. EmlabError where it does not bring it."""
        return prompts.fill(self._prompt(question), question.text, answer)

    def label(self, rollouts: Rollouts) -> list[Label]:
        """A label for each answer, in order."""
        replies = zip(self.replies(rollouts), rollouts.questions, strict=True)
        return [_read(reply, _choices(self._prompt(question))) for reply, question in replies]

    def _prompt(self, question: Question) -> str:
        found = self.prompts.get(question.key, {}).get(self.asked_for)
        if found is None:
            raise EmlabError(
                f"The question {question.id!r} brings no judge prompt {self.asked_for!r}; judge it by another method, "
                "or leave it out."
            )
        return found


def _check(questions: Questions) -> None:
    """EmlabError where not every question brings one and the same prompt that asks for a label."""
    given = prompts.brought_by(questions)
    names = labels_asked_for(given)
    if not names:
        raise EmlabError(
            "Judging by labels needs a file of questions with judge prompts that ask for one, such as the published "
            "deception questions; choose another method, or other questions."
        )
    if len(names) > 1:
        raise EmlabError(
            f"The questions bring judge prompts for several labels ({', '.join(names)}); keep those of one in a file."
        )
    if lacking := [question.id for question in questions if names[0] not in given.get(question.key, {})]:
        raise EmlabError(f"The question {lacking[0]!r} brings no judge prompt {names[0]!r} as the others do; add it.")


@judging_method("label", labels=True, check=_check)
def label(how: Judging, questions: Questions, by: Completer) -> LabelJudge:
    """One of the words that the file's judge prompts ask for, such as TRUE, FALSE and UNKNOWN."""
    given = prompts.brought_by(questions)
    return LabelJudge(by, given, labels_asked_for(given)[0], store=how.store, max_tokens=how.max_tokens)


def _choices(prompt: str) -> tuple[str, ...]:
    """The labels that a prompt names in double quotes."""
    found = tuple(dict.fromkeys(label.strip() for label in _QUOTED.findall(prompt) if label.strip()))
    if len(found) < 2:
        raise EmlabError(
            f"The judge prompt {prompt[:60]!r}… names fewer than two labels in double quotes; write them so, as in "
            'Say "TRUE" or "FALSE" only.'
        )
    return found


def _read(reply: Completion, choices: tuple[str, ...]) -> Label:
    if why := unread(reply):
        return Label(said=why)
    named = only_label(reply.text, choices)
    return Label(said=reply.text[:200] or "an empty reply") if named is None else Label(named)


def read_labelled(path: str | Path) -> Labelled:
    """Read labelled answers: what `save_labelled` wrote, or a JSONL or CSV with a row for each answer.

    A row needs the columns `label` (empty where the judging failed) and one of QUESTION_COLUMNS; others are read as
    `read_judged` does. The labels on offer are those that the file states, and else those that were given. Raises
    EmlabError naming the line that is wrong, and where two judges, or two kinds of label, stand in one file.
    """
    path = artifacts.place(path)
    table = tables.read(file_in(path, labels=True) if path.is_dir() else path)
    table.need("label")
    rows, question = table.rows, table.question
    assert question is not None
    kinds = sorted({str(row.get("asked_for") or "") for _, row in rows})
    if len(kinds) > 1:
        raise EmlabError(f"{path} holds labels of {' and '.join(kinds)}; put them into files of their own.")
    labels = tuple(_cell(row.get("label")) for _, row in rows)
    stated = _stated(rows[0][1].get("choices"))
    given = dict.fromkeys(label for label in labels if label)
    for (where, _), label in zip(rows, labels, strict=True):
        if label and stated and label not in stated:
            raise EmlabError(f"{where}: {label[:40]!r} is none of the labels {', '.join(stated)}; mend it.")
    said = tuple(_cell(row.get("said")) for _, row in rows)
    rollouts, judge = tables.rollouts_of(path, rows, question), tables.only_judge(path, rows)
    return Labelled(rollouts, labels, stated or tuple(given), kinds[0], said, judge)


def _cell(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _stated(choices: Any) -> tuple[str, ...]:
    if isinstance(choices, str):  # the cell of a CSV
        try:
            choices = json.loads(choices)
        except ValueError:
            return ()
    return tuple(map(str, choices)) if isinstance(choices, Iterable) else ()


@dataclass(frozen=True)
class RecordedLabels:
    """Labels by looking answers up: each has the label that the same answer to the same question has in a file."""

    path: Path
    """As `read_labelled` reads it; it must have the answers."""
    _labels: Lookup[Label] = field(default_factory=Lookup, repr=False)
    _read: Labelled = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = read_labelled(self.path)
        object.__setattr__(self, "_read", found)
        self._labels.add(found.rollouts, [Label(*one) for one in zip(found.labels, found.said, strict=True)])
        self._labels.check(self.path)

    @property
    def name(self) -> str:
        """The file."""
        return f"recorded in {Path(self.path).name}"

    @property
    def asked_for(self) -> str:
        """What the labels are about, as the file says."""
        return self._read.asked_for

    @property
    def choices(self) -> tuple[str, ...]:
        """The labels of the file."""
        return self._read.choices

    def label(self, rollouts: Rollouts) -> list[Label]:
        """A label for each answer, in order. Of an answer recorded several times the labels are taken in turn."""
        missing = Label(said=f"not in {Path(self.path).name}")
        return [missing if found is None else found for found in self._labels.find(rollouts)]


@judging_method("recorded_labels", asks=False, labels=True, stands_for=is_table)
def recorded_labels(how: Judging, questions: Questions, by: None) -> RecordedLabels:
    """The labels in the file of answers that is named as the judge."""
    return RecordedLabels(Path(how.judge))
