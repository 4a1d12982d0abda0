"""Judges and other models behind an endpoint that say on the terminal what they will take, and what they took."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from emlab.evaluation.judges import GraderJudge, LabelJudge, RubricJudge, ScaleJudge
from emlab.evaluation.judging import Grade, Judge
from emlab.evaluation.labelling import Label, Labeller
from emlab.evaluation.rollouts import Rollouts
from emlab.models import Completion, Endpoint, Request
from emlab.models.completion import Done, unanswered

J = TypeVar("J", bound=Judge | Labeller)


def telling(judge: J) -> J:
    """The judge; one behind an endpoint in a form that tells calls, tokens and cost before it asks, and after."""
    if isinstance(judge, ScaleJudge | RubricJudge | GraderJudge) and isinstance(judge.by, Endpoint):
        return _TellingJudge(judge, judge.by)  # type: ignore[return-value]
    if isinstance(judge, LabelJudge) and isinstance(judge.by, Endpoint):
        return _TellingLabeller(judge, judge.by)  # type: ignore[return-value]
    return judge


@dataclass(frozen=True)
class _TellingJudge:
    judge: ScaleJudge | RubricJudge | GraderJudge
    by: Endpoint

    @property
    def name(self) -> str:
        return self.judge.name

    def grade(self, rollouts: Rollouts) -> Sequence[Grade]:
        with _told(self.judge, self.by, rollouts):
            return self.judge.grade(rollouts)


@dataclass(frozen=True)
class _TellingLabeller:
    judge: LabelJudge
    by: Endpoint

    @property
    def name(self) -> str:
        return self.judge.name

    @property
    def asked_for(self) -> str:
        return self.judge.asked_for

    @property
    def choices(self) -> tuple[str, ...]:
        return self.judge.choices

    def label(self, rollouts: Rollouts) -> Sequence[Label]:
        with _told(self.judge, self.by, rollouts):
            return self.judge.label(rollouts)


@dataclass(frozen=True)
class TellingCompleter:
    """A model behind an endpoint that tells calls, tokens and cost before each set of requests, and after."""

    by: Endpoint
    what: str
    """What it is asked to do."""

    @property
    def name(self) -> str:
        """The model's."""
        return self.by.name

    def identity(self) -> str:
        """The model's."""
        return self.by.identity()

    def complete(self, requests: Sequence[Request], done: Done | None = None) -> list[Completion]:
        """As the model does."""
        with _costs(f"{self.what} by {self.name}", self.by, requests):
            return self.by.complete(requests, done)


@contextlib.contextmanager
def _told(
    judge: ScaleJudge | RubricJudge | GraderJudge | LabelJudge, by: Endpoint, rollouts: Rollouts
) -> Iterator[None]:
    with _costs(f"judging by {judge.name}", by, unanswered(by, judge.requests(rollouts), judge.store)):
        yield


@contextlib.contextmanager
def _costs(what: str, by: Endpoint, asked: Sequence[Request]) -> Iterator[None]:
    print(f"{what}: {by.estimate(asked)}", file=sys.stderr)
    yield
    if asked:
        used = by.usage
        cost = by.dollars(used.prompt_tokens, used.completion_tokens)
        took = f"{used.calls:,} calls, {used.prompt_tokens:,} tokens in and {used.completion_tokens:,} out"
        print(f"asked so far: {took}" + ("" if cost is None else f", ${cost:.2f}"), file=sys.stderr)
