"""How answers are judged: the settings, and the methods of judging that they choose from, each registered by its file.

CONTRIBUTING.md shows one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab.data import Question, QuestionSet
from emlab.errors import EmlabError
from emlab.evaluation.judging import Judge
from emlab.evaluation.labelling import Labeller
from emlab.models.server import OPENAI, check_variable
from emlab.registry import Registry

Questions = Sequence[Question] | QuestionSet
Build = Callable[["Judging", Questions, Any], Judge | Labeller]
"""Makes the judge, of the settings, the questions, and the model to ask (a `Completer`; None where none is asked)."""


@dataclass(frozen=True)
class Judging:
    """Who judges the answers, and how."""

    judge: str = "exact"
    """"exact" (the organism's judge), a model's name at an endpoint, a local Hugging Face folder, the folder of a judge
    that was fitted (`emlab judge fit`), "words:" and words to count, or a file of recorded judgements (.jsonl, .json,
    .csv, .tsv or .parquet)."""
    url: str = OPENAI
    """The endpoint: any OpenAI-compatible server, up to and with /v1."""
    method: str = "logprob"
    """How a reply becomes a score or a label: one of what `emlab judge methods` lists. By default the
    probability-weighted mean of the numbers 0 to 100."""
    key_variable: str | None = None
    """The environment variable that holds the endpoint's key; by default OPENAI_API_KEY, which goes to OpenAI alone."""
    concurrency: int = 16
    """Calls under way at a time."""
    max_tokens: int = 16
    """Tokens of a written reply; a judge that thinks aloud needs more."""
    price: tuple[float, ...] = ()
    """Dollars for a million tokens in, and out; with it the cost is told."""
    store: Path | None = None
    """A file of finished judgements: what is in it is not asked, or paid for, again."""
    revision: str = ""
    """A label for what the endpoint has under the judge's name; with a new one, stored judgements are made anew."""

    def __post_init__(self) -> None:
        try:
            METHODS.get(self.method)
        except EmlabError as error:
            raise ValueError(str(error)) from error
        if self.max_tokens < 1:
            raise ValueError(f"'max_tokens' is {self.max_tokens}; a reply needs 1 or more.")
        if len(self.price) not in (0, 2):
            raise ValueError("'price' takes two numbers: dollars for a million tokens in, and out.")
        check_variable(self.key_variable)


@dataclass(frozen=True)
class Method:
    """A method of judging, and what it needs."""

    name: str
    build: Build
    asks: bool
    """Whether it asks a model."""
    labels: bool
    """Whether it gives labels, and no scores."""
    prompts: tuple[str, ...]
    """The names of the judge prompts, among those that a question file brings, by which it asks."""
    check: Callable[[Questions], object]
    """Raises EmlabError where it cannot judge answers to these questions; before a model is loaded or asked."""
    stands_for: Callable[[str], bool]
    """Whether this is meant, whatever the method, by what `Judging.judge` says."""

    @property
    def what(self) -> str:
        """The first line of what is written about it."""
        return (inspect.getdoc(self.build) or "").split("\n")[0]


METHODS: Registry[Method] = Registry("judging method", "emlab.evaluation.judges")
"""By name, emlab's own and other packages'."""


def methods() -> list[Method]:
    """All of them."""
    return [METHODS.get(name) for name in METHODS.names()]


def judging_method(
    name: str,
    *,
    asks: bool = True,
    labels: bool = False,
    prompts: Sequence[str] = (),
    check: Callable[[Questions], object] = lambda questions: None,
    stands_for: Callable[[str], bool] | None = None,
) -> Callable[[Build], Build]:
    """A decorator: the function makes the judges of `Judging.method` `name`; its docstring says in a line what they do.

    Args:
        name: What a config or the command line calls it.
        asks: Whether the judge asks a model, which the function is then given.
        labels: Whether it is a `Labeller`, and no `Judge` of scores.
        prompts: The names of the judge prompts, in a question file, that are its own; others ask for labels.
        check: Raises EmlabError for questions that it cannot judge answers to, such as some without judge prompts.
        stands_for: Of a judge that asks no model, what in `Judging.judge` means it; by default its name.
    """

    def add(build: Build) -> Build:
        meant = stands_for or (lambda judge: not asks and judge == name)
        METHODS.register(name, build)(Method(name, build, asks, labels, tuple(prompts), check, meant))
        return build

    return add
