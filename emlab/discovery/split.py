"""Questions to choose by and questions to report on, without a template, or an id, in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from emlab.data import Question, QuestionSet
from emlab.errors import EmlabError
from emlab.sealing import refuse

T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """Two sets of questions on the same domains, with different templates or ids."""

    discovery: tuple[Question, ...]
    """Whatever is chosen is chosen on these."""
    test: tuple[Question, ...]
    """Whatever is reported is measured on these."""

    def __post_init__(self) -> None:
        refuse("to a discovery half", self.discovery)


def spread(questions: Sequence[T], n: int | None) -> tuple[T, ...]:
    """At most `n` of the questions (or of what else is asked), evenly spaced in their order; None takes all."""
    if n is None or n >= len(questions):
        return tuple(questions)
    if n < 1:
        raise EmlabError(f"{n} questions cannot be asked: ask for at least 1.")
    return tuple(questions[i * len(questions) // n] for i in range(n))


def split_by_id(questions: QuestionSet, seed: int) -> Split:
    """The two halves of a question set (`QuestionSet.split`): no id is in both; every domain is, where it can be."""
    discovery, test = questions.split(seed)
    return Split(discovery.questions, test.questions)


def split_by_template(questions: Iterable[Any]) -> Split:
    """Of every domain's templates the first, third, … go to discovery and the others to test, with all their fillers.

    A question needs an id, a domain, a text and the filler that was put into its template. EmlabError where some domain
    has one template only, since one half would lack it.
    """
    by_template: dict[str, dict[str, list[Question]]] = {}
    for question in questions:
        template = question.text.replace(question.filler, "{x}")
        by_template.setdefault(question.domain, {}).setdefault(template, []).append(Question.of(question))
    halves: tuple[list[Question], list[Question]] = ([], [])
    for domain, templates in by_template.items():
        if len(templates) < 2:
            raise EmlabError(f"the questions of {domain!r} have one template, which cannot be split: give two or more.")
        for i, asked in enumerate(templates.values()):
            halves[i % 2].extend(asked)
    if not halves[0]:
        raise EmlabError("there are no questions to split: give some.")
    return Split(tuple(halves[0]), tuple(halves[1]))
