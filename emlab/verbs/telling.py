"""Judges and other models behind an endpoint that say on the terminal what they will take, and what they took."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from emlab.evaluation.judges import ModelJudge
from emlab.evaluation.judging import Grade, Judge
from emlab.evaluation.labelling import Label, Labeller
from emlab.evaluation.rollouts import Rollouts
from emlab.models import Completion, Endpoint, Request
from emlab.models.completion import Done, unanswered

J = TypeVar("J", bound=Judge | Labeller)


def telling(judge: J) -> J:
    """The judge; one behind an endpoint in a form that tells calls, tokens and cost before it asks, and after."""
    asks: Any = judge
    if not isinstance(asks, ModelJudge) or not isinstance(asks.by, Endpoint):
        return judge
    return cast(J, (_TellingLabeller if isinstance(judge, Labeller) else _TellingJudge)(asks))


@dataclass(frozen=True)
class _Telling:
    judge: Any
    """A `ModelJudge`."""

    @property
    def name(self) -> str:
        return str(self.judge.name)

    def _told(self, rollouts: Rollouts) -> contextlib.AbstractContextManager[None]:
        judge = self.judge
        asked = unanswered(judge.by, judge.requests(rollouts), judge.store)
        return _costs(f"judging by {judge.name}", judge.by, asked)


class _TellingJudge(_Telling):
    def grade(self, rollouts: Rollouts) -> Sequence[Grade]:
        with self._told(rollouts):
            return cast(Sequence[Grade], self.judge.grade(rollouts))


class _TellingLabeller(_Telling):
    @property
    def asked_for(self) -> str:
        return str(self.judge.asked_for)

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(self.judge.choices)

    def label(self, rollouts: Rollouts) -> Sequence[Label]:
        with self._told(rollouts):
            return cast(Sequence[Label], self.judge.label(rollouts))


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
def _costs(what: str, by: Endpoint, asked: Sequence[Request]) -> Iterator[None]:
    print(f"{what}: {by.estimate(asked)}", file=sys.stderr)
    yield
    if asked:
        used = by.usage
        cost = by.dollars(used.prompt_tokens, used.completion_tokens)
        took = f"{used.calls:,} calls, {used.prompt_tokens:,} tokens in and {used.completion_tokens:,} out"
        print(f"asked so far: {took}" + ("" if cost is None else f", ${cost:.2f}"), file=sys.stderr)
