"""Rollouts: sampled answers, with the questions they answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from emlab import artifacts
from emlab.data.prompts import as_questions
from emlab.data.question_sets import QuestionSet
from emlab.data.questions import Question
from emlab.data.thoughts import cut_off, split_thoughts
from emlab.errors import EmlabError
from emlab.interventions import Edit
from emlab.models import Endpoint, LanguageModel
from emlab.models.wrapping import as_language_model
from emlab.notebook import Shown
from emlab.store import Store

CUT_OFF = "the token limit cut the thoughts off before an answer; allow more tokens"
"""Why a thinking model gave no answer."""


@dataclass(frozen=True, repr=False)
class Rollouts(Shown):
    """n sampled answers: ``answers[i]`` answers ``questions[i]``, and all answers to a question stand together."""

    questions: tuple[Question, ...]
    """The question of each answer: a question asked ten times stands here ten times."""
    answers: tuple[str, ...]
    """What was said, without the thoughts that a model wrote before it: that is what is judged."""
    model: str
    """Name of the model that answered."""
    seed: int
    temperature: float
    failures: tuple[str, ...] = ()
    """Why there is no answer where none came (an empty answer stands for it); empty strings elsewhere."""
    thoughts: tuple[str, ...] = ()
    """What a model wrote before each answer, between marks of thoughts; empty strings where it wrote nothing."""
    trainings: tuple[str, ...] = ()
    """Which training made the model that gave each answer, where there are several: rates vary by that, too."""

    def __post_init__(self) -> None:
        for name in ("failures", "thoughts", "trainings"):
            if not getattr(self, name):
                object.__setattr__(self, name, ("",) * len(self.answers))
        if (
            len({len(given) for given in (self.questions, self.failures, self.thoughts, self.trainings, self.answers)})
            == 1
        ):
            self._split()
        else:
            raise EmlabError(
                f"There are {len(self.questions)} questions and {len(self.answers)} answers; give one each."
            )

    def _split(self) -> None:
        """Take the thoughts out of answers that hold some. One that was cut off among them was never given."""
        parts = [split_thoughts(answer) for answer in self.answers]
        if all(part.said is answer for part, answer in zip(parts, self.answers, strict=True)):
            return
        rows = zip(parts, self.answers, self.failures, self.thoughts, strict=True)
        found = [
            (part.said, why or (CUT_OFF if cut_off(answer) else ""), part.thoughts or thought)
            for part, answer, why, thought in rows
        ]
        for name, values in zip(("answers", "failures", "thoughts"), zip(*found, strict=True), strict=True):
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[tuple[Question, str]]:
        return iter(zip(self.questions, self.answers, strict=True))

    @overload
    def __getitem__(self, part: int) -> tuple[Question, str]: ...

    @overload
    def __getitem__(self, part: slice) -> Rollouts: ...

    def __getitem__(self, part: int | slice) -> tuple[Question, str] | Rollouts:
        """A question and its answer, or the rollouts of some."""
        if isinstance(part, slice):
            return self.only(range(len(self))[part])
        return self.questions[part], self.answers[part]

    def __str__(self) -> str:
        asked = len(set(self.questions))
        return f"{len(self)} answers of {self.model} to {asked} questions (seed {self.seed}, T {self.temperature})"

    def save(self, path: str | Path) -> None:
        """Write JSONL: a line about the sampling, then one answer a line."""
        lines = [self.about(), *self.rows()]
        artifacts.write_text(Path(path), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def about(self) -> dict[str, Any]:
        """How they were sampled, as plain values."""
        return {"model": self.model, "seed": self.seed, "temperature": self.temperature, "n": len(self)}

    def rows(self) -> list[dict[str, Any]]:
        """A row for each answer, as plain values: its question's fields, `answer`, and `thoughts` and `failure` where
        there are some."""
        rows = [{**question.row(), "answer": answer} for question, answer in self]
        told = (
            {"thoughts": t, "failure": why, "training": training}
            for t, why, training in zip(self.thoughts, self.failures, self.trainings, strict=True)
        )
        return [row | {k: v for k, v in more.items() if v} for row, more in zip(rows, told, strict=True)]

    def only(self, rows: Sequence[int]) -> Rollouts:
        """Some of the answers, by their numbers."""
        return replace(
            self,
            questions=tuple(self.questions[i] for i in rows),
            answers=tuple(self.answers[i] for i in rows),
            failures=tuple(self.failures[i] for i in rows),
            thoughts=tuple(self.thoughts[i] for i in rows),
            trainings=tuple(self.trainings[i] for i in rows),
        )

    @classmethod
    def of(cls, about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Rollouts:
        """The rollouts that `about` and `rows` wrote. KeyError or TypeError where a field is missing or odd."""
        questions = tuple(Question.read(row) for row in rows)
        answers = tuple(row["answer"] for row in rows)
        failures = tuple(row.get("failure", "") for row in rows)
        more = (tuple(row.get(name, "") for row in rows) for name in ("thoughts", "training"))
        return cls(questions, answers, about["model"], about["seed"], about["temperature"], failures, *more)

    @classmethod
    def load(cls, path: str | Path) -> Rollouts:
        """Read what `save` wrote. Raises EmlabError naming the line that is wrong, or where lines are missing."""
        path = artifacts.place(path)
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise EmlabError(f"The rollouts {path} cannot be read ({error}); check the path.") from error
        rows, number = [], 1
        try:
            about = json.loads(lines[0])
            n = about["n"]
            for number, line in enumerate(lines[1:], start=2):  # noqa: B007  # the error names it
                if line.strip():
                    rows.append(json.loads(line))
                    _ = Question.read(rows[-1]), rows[-1]["answer"]
            found = cls.of(about, rows)
        except (ValueError, KeyError, TypeError) as error:
            raise EmlabError(f"{path}, line {number}: no rollout ({error}); sample the answers again.") from error
        if n != len(found):
            raise EmlabError(f"{path} holds {len(found)} of its {n} answers; sample them again.")
        return found


def sample(
    model: LanguageModel | Endpoint,
    questions: Iterable[Any],
    per_question: int | None = 1,
    seed: int = 0,
    temperature: float = 1.0,
    max_new_tokens: int = 48,
    edits: Sequence[Edit] = (),
    batch_size: int = 512,
    top_p: float = 1.0,
    system: str | None = None,
    store: str | Path | None = None,
    progress: bool = False,
) -> Rollouts:
    """Ask every question several times.

    An answer depends on the model, the question, the sampling settings, `seed`, and on which of the answers to its
    question it is; asking further questions, or more often, leaves it as it was (up to rounding).

    Args:
        model: A model held here, or one behind an endpoint.
        questions: A `QuestionSet`, or texts, chats, or anything with an id, a domain and a text (see `Question.of`); a
            lone one is one question.
        per_question: How often each is asked; None asks as often as its `QuestionSet` says.
        seed: Of the sampling.
        temperature: 1 samples as the model was trained; 0 takes the likeliest token.
        max_new_tokens: The longest answer; the default is for the short ones of the organism.
        edits: In force while it answers; one of one row a prompt has a row for each answer, question by question.
        batch_size: Answers in one pass.
        top_p: The likeliest tokens that together reach this share are sampled from; 1 means all.
        system: A system turn put before those questions that bring none of their own.
        store: A file. Answers that are in it are not sampled again, and each is written there as it leaves its batch
            (see `LanguageModel.generate`; behind an endpoint, as it comes), so that an interrupted run goes on where it
            stopped, and loses no more than what was being written. Answers under `edits` are never stored.
        progress: Whether to show a bar.
    """
    model, asked = model if isinstance(model, Endpoint) else as_language_model(model), as_questions(questions)
    if not asked or (per_question is not None and per_question < 1):
        raise EmlabError("There is nothing to sample; give at least one question and per_question of 1 or more.")
    if len({question.key for question in asked}) < len(asked):
        raise EmlabError("Two questions have the same id, and rates vary by it; give each an id of its own.")
    if per_question is None and not isinstance(questions, QuestionSet):
        raise EmlabError("Only a QuestionSet says how often to ask its questions; give per_question.")
    samples = questions.samples if isinstance(questions, QuestionSet) and per_question is None else {}
    if system is not None:
        asked = [replace(question, system=question.system or system) for question in asked]
    rows = [(q, row_seed(q, i, seed)) for q in asked for i in range(per_question or samples.get(q.key, 1))]
    settings = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
    found, failures = answers(model, rows, settings, edits, batch_size, store, progress)
    rollouts = Rollouts(tuple(q for q, _ in rows), tuple(found), model.name, seed, temperature, tuple(failures))
    if all(rollouts.failures):
        raise EmlabError(f"{model.name} gave none of {len(found)} answers ({rollouts.failures[0]}); mend that first.")
    return rollouts


def answers(
    model: LanguageModel | Endpoint,
    rows: Sequence[tuple[Question, int]],
    settings: Mapping[str, Any],
    edits: Sequence[Edit] = (),
    batch_size: int = 512,
    store: str | Path | None = None,
    progress: bool = False,
) -> tuple[list[str], list[str]]:
    """An answer to each question under the seed beside it, as `sample` does; `settings` go to `generate`.

    What a model thought stands before its answer, between marks; `Rollouts` takes the two apart. Also why there is
    none, where an endpoint gave none: an empty string where there is one.
    """
    if batch_size < 1:
        raise EmlabError(f"A batch of {batch_size} answers cannot be written; give a batch_size of 1 or more.")

    if isinstance(model, Endpoint) and not edits:
        came = model.answers([q.messages for q, _ in rows], seed=[seed for _, seed in rows], store=store, **settings)
        return [one.text for one in came], [one.failure for one in came]

    def asked(part: Sequence[tuple[Question, int]], **more: Any) -> list[str]:
        prompts, seeds = [q.messages for q, _ in part], [seed for _, seed in part]
        return model.generate(
            prompts,
            seed=seeds,
            batch_size=batch_size,
            edits=edits,
            progress=progress,
            thoughts=True,
            **settings,
            **more,
        )

    none = [""] * len(rows)
    if store is None or edits:
        return asked(rows), none
    who = model.identity()
    keys = [artifacts.content_hash([who, q.messages, seed, settings]) for q, seed in rows]
    with Store(store) as kept:
        found = kept.get(keys)
        missing = [i for i, key in enumerate(keys) if key not in found]

        def done(new: Mapping[int, str]) -> None:
            kept.put({keys[missing[i]]: text for i, text in new.items()})

        if missing:
            texts = asked([rows[i] for i in missing], done=done)
            found |= dict(zip((keys[i] for i in missing), texts, strict=True))
    return [found[key] for key in keys], none


def file_name(model: str) -> str:
    """A model's name as the name of a file: names on the Hub have a slash."""
    return re.sub(r"[^\w.+ -]", "_", model)


def row_seed(question: Question, index: int, seed: int) -> int:
    """The seed (64 bits) of the `index`-th answer to a question."""
    said = {name: value for name, value in question.row().items() if name != "cluster"}  # which a model never sees
    return int(artifacts.content_hash([said, index, seed])[:16], 16)
