"""The models behind a judge in Inspect: one that Inspect runs, one at an endpoint, one held here."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from emlab.data import read_questions
from emlab.errors import EmlabError, install
from emlab.evaluation.inspect_log import question_of
from emlab.evaluation.judges.registry import Judging, Questions
from emlab.evaluation.rollouts import Rollouts
from emlab.models import Completer, Endpoint, LanguageModel, LocalCompleter
from emlab.models.completion import Completion, Done, Request, first_numbers

try:
    import anyio
    from inspect_ai.model import ChatMessageUser, GenerateConfig, Model, ModelOutput, get_model
    from inspect_ai.solver import TaskState
    from inspect_ai.util import collect, concurrency
except ImportError as error:
    raise EmlabError(f"Inspect is not installed ({error}); install it with `{install('inspect')}`.") from error

J = TypeVar("J")
T = TypeVar("T")

_CUT = ("max_tokens", "model_length")
"""What Inspect calls an answer that a limit of tokens ended."""


def path_of(name: str) -> Path:
    """Where a file lies. Inspect enters the folder of a task's file before it calls the task, so that a path that is
    relative to where the command was given is looked for there too."""
    given = [Path(name), Path(os.environ.get("PWD", ".")) / name]
    return next((path for path in given if path.exists()), given[0]).resolve()


def judging_of(judge: str, method: str, tokens: int) -> Judging:
    """The settings that the arguments of the task make."""
    try:
        return Judging(judge, method=method, max_tokens=tokens)
    except ValueError as error:
        raise EmlabError(str(error)) from error


def prompts_in(file: str | None) -> Questions:
    """The questions whose judge prompts are used: those of a file, where one is given."""
    return read_questions(file) if file else ()


def one_by_one(
    work: Callable[[Rollouts, J], T], by: J, judge: str, url: str | None
) -> Callable[[TaskState], Awaitable[T]]:
    """What the judge `by` makes of a sample's answer, by `work`."""
    at_once = calls_at_once(by, url)
    threads = anyio.CapacityLimiter(1000)

    async def judged(state: TaskState) -> T:
        question, answer = question_of(state.metadata, state.input), state.output.completion
        rollouts = Rollouts((question,), (answer,), str(state.model), 0, math.nan)
        async with concurrency(f"judging by {judge}", at_once, visible=at_once < 1000):
            # Judges wait for their replies, so they do it in a thread, and Inspect's event loop goes on.
            return await anyio.to_thread.run_sync(work, rollouts, by, limiter=threads)

    return judged


def model_of(judge: str, url: str | None, key: str | None) -> Completer:
    """The model behind an endpoint where `url` is one, in a folder, or as Inspect names it."""
    if url is not None:
        return Endpoint(judge, url, key, progress=False)
    if path_of(judge).is_dir():
        return LocalCompleter(LanguageModel.load(path_of(judge)), progress=False)
    return InspectModel(judge)


def calls_at_once(by: object, url: str | None) -> int:
    """How many answers may be judged at a time by the judge `by`.

    A model held here judges one at a time. Inspect itself limits the calls to its models.
    """
    return 1 if isinstance(getattr(by, "by", None), LocalCompleter) else 16 if url else 1000


class InspectModel:
    """A model role, or a model as Inspect names it, as a judge's model. It is asked from a thread that Inspect's event
    loop started; the calls themselves run in that loop, and stand in the sample's transcript."""

    def __init__(self, spec: str) -> None:
        self.spec = spec

    @property
    def model(self) -> Model:
        # Not kept: Inspect closes its models at the end of each evaluation, and has a cache of its own.
        return get_model(self.spec) if "/" in self.spec else get_model(role=self.spec, required=True)

    @property
    def name(self) -> str:
        return str(self.model)

    def identity(self) -> str:
        return self.name

    def complete(self, requests: Sequence[Request], done: Done | None = None) -> list[Completion]:
        return anyio.from_thread.run(self._all, requests)

    async def _all(self, requests: Sequence[Request]) -> list[Completion]:
        try:
            return await collect(*[self._one(request) for request in requests])
        except ExceptionGroup as group:  # both calls fail for one reason; one sentence says it
            found: Exception = group
            while isinstance(found, ExceptionGroup):
                found = found.exceptions[0]
            raise found from None

    async def _one(self, request: Request) -> Completion:
        config = GenerateConfig(max_tokens=request.max_tokens, temperature=request.temperature)
        if request.numbers:
            config = config.merge(GenerateConfig(logprobs=True, top_logprobs=20))
        output = await self.model.generate(
            [ChatMessageUser(content=turn["content"]) for turn in request.messages], config=config
        )
        try:
            numbers = first_numbers(_tokens(output), self.name) if request.numbers else None
        except ValueError as error:
            return Completion(failure=str(error))
        # Inspect keeps the thoughts apart that its provider knows; those that are cut have nothing said after them.
        return Completion(output.completion, numbers, failure=output.error or "", cut=output.stop_reason in _CUT)


def _tokens(output: ModelOutput) -> list[tuple[str, list[tuple[str, float]]]]:
    """The answer's tokens, each with its candidates and their log-probabilities."""
    given = output.choices[0].logprobs.content if output.choices and output.choices[0].logprobs else []
    return [(one.token, [(c.token, c.logprob) for c in one.top_logprobs or ()]) for one in given]
