"""A chat model behind an OpenAI-compatible endpoint: OpenAI itself, vLLM, SGLang, llama.cpp, `transformers serve`.

It samples answers (`generate`, as a `LanguageModel` does) and completes a judge's requests (`complete`): many at a
time, tried again with growing pauses when the server is busy, and counted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from emlab.data.chat import Messages
from emlab.data.prompts import prompts_of
from emlab.data.thoughts import split_thoughts
from emlab.errors import EmlabError
from emlab.models import token_counts
from emlab.models._calls import NUMBER_TOKENS, Calls, run
from emlab.models.completion import Completion, Done, Request, complete

OPENAI = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
"""The variable with the key for OpenAI's own servers; its key is sent to no other unless it is named for that one."""


@dataclass
class Usage:
    """What has been asked so far."""

    calls: int = 0
    """Requests answered."""
    retries: int = 0
    """Requests sent again."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Estimate:
    """What some requests will take."""

    calls: int
    prompt_tokens: int
    """About: of the texts, without what the chat template adds."""
    completion_tokens: int
    """At most."""
    dollars: float | None
    """About what is read and at most what is written; None where no price was given."""
    counted_by: str
    """What counted the tokens."""

    def __str__(self) -> str:
        cost = "" if self.dollars is None else f", at most about ${self.dollars:.2f}"
        tokens = f"about {self.prompt_tokens:,} tokens in (counted by {self.counted_by})"
        return f"{self.calls:,} calls, {tokens} and at most {self.completion_tokens:,} out{cost}"


@dataclass(frozen=True)
class Endpoint:
    """One model of one server. The key is read from the environment when a call is made, and kept nowhere."""

    model: str
    """The server's name for the model."""
    base_url: str = OPENAI
    """Where the server is, up to and with /v1."""
    key_variable: str | None = None
    """The environment variable that holds the key for this server. None: OPENAI_API_KEY for OpenAI's own servers, and
    for all others no key, so that none goes to a server it was not meant for."""
    concurrency: int = 16
    """Calls under way at a time."""
    timeout: float = 120.0
    """Seconds a call may take."""
    retries: int = 8
    """How often a call is tried again after 408, 409, 429, 5xx, a time-out or a lost connection."""
    pause: float = 0.25
    """Seconds before it is first tried again; each further pause is twice as long, up to 30 s, unless the server says
    how long."""
    price: tuple[float, float] | None = None
    """Dollars for a million tokens in, and out."""
    progress: bool = True
    """Whether to show a bar."""
    revision: str = ""
    """Any label for what the server now has under this name. Stored answers are those of one label: give a new one
    when the server has other weights under the old name, of which emlab cannot know."""
    usage: Usage = field(default_factory=Usage, compare=False)
    """What has been asked so far."""

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise EmlabError(f"With {self.concurrency} calls under way at a time nothing is asked; give 1 or more.")
        check_variable(self.key_variable)

    @property
    def name(self) -> str:
        """What to call it in tables."""
        return self.model

    def identity(self) -> str:
        """The server, the model and, where one was given, its revision."""
        return " ".join([self.base_url, self.model, *([self.revision] if self.revision else [])])

    def estimate(self, requests: Sequence[Request]) -> Estimate:
        """What `requests` will take."""
        count, by = token_counts.counter(self.model, self.is_openai)
        read = count([turn["content"] for request in requests for turn in request.messages])
        written = sum(NUMBER_TOKENS if request.numbers else request.max_tokens for request in requests)
        return Estimate(len(requests), read, written, self.dollars(read, written), by)

    def generate(
        self,
        prompts: Sequence[str | Messages],
        max_new_tokens: int = 48,
        temperature: float = 1.0,
        seed: int | Sequence[int] = 0,
        batch_size: int = 0,
        edits: Sequence[object] = (),
        top_p: float = 1.0,
        progress: bool = False,
        store: str | Path | None = None,
        thoughts: bool = False,
    ) -> list[str]:
        """One answer a prompt, as `LanguageModel.generate`; `batch_size` and `progress` mean nothing here.

        Whether `seed` has an effect is up to the server. In the file `store` each answer is kept as it comes.
        EmlabError where `edits` are given, and where an answer was not to be had.
        """
        if edits:
            raise EmlabError(f"A model behind an endpoint cannot be edited; load {self.model} to edit it.")
        found = self.answers(prompts, max_new_tokens, temperature, seed, top_p, store)
        if failed := [one.failure for one in found if one.failure]:
            keep = "ask again" if store is not None else "ask again, with a store, which keeps those that come"
            raise EmlabError(
                f"{len(failed)} of {len(found)} answers of {self.model} were not to be had ({failed[0]}); {keep}."
            )
        return [one.text if thoughts else split_thoughts(one.text).said for one in found]

    def answers(
        self,
        prompts: Sequence[str | Messages],
        max_new_tokens: int = 48,
        temperature: float = 1.0,
        seed: int | Sequence[int] = 0,
        top_p: float = 1.0,
        store: str | Path | None = None,
    ) -> list[Completion]:
        """As `generate`, with the thoughts, between marks, that a server gave; and where an answer was not to be had,
        why."""
        prompts = prompts_of(prompts)
        seeds = [seed + i for i in range(len(prompts))] if isinstance(seed, int) else list(seed)
        requests = []
        for prompt, each in zip(prompts, seeds, strict=True):
            chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            requests.append(Request(chat, max_new_tokens, temperature, top_p, each))
        return complete(self, requests, store)

    def complete(self, requests: Sequence[Request], done: Done | None = None) -> list[Completion]:
        """A completion for each request, in order; one that cannot be had says why.

        EmlabError where the server cannot be reached, knows neither the key nor the model, or gives no probabilities
        though `numbers` were asked for.
        """
        return run(Calls(self, requests, done).all()) if requests else []

    def dollars(self, read: int, written: int) -> float | None:
        """What so many tokens in and out cost; None where no price was given."""
        return None if self.price is None else (read * self.price[0] + written * self.price[1]) / 1e6

    @property
    def is_openai(self) -> bool:
        """Whether the server is one of OpenAI's own, reached so that nobody can read along."""
        parts = urlsplit(self.base_url)
        return parts.scheme == "https" and f".{parts.hostname}".endswith(".api.openai.com")

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        return urlsplit(self.base_url).hostname in ("localhost", "127.0.0.1", "::1", "0.0.0.0")

    def key(self) -> str | None:
        """The key, from the environment; None where none is to be sent."""
        variable = self.key_variable or (OPENAI_KEY if self.is_openai else None)
        if variable is None:
            return None
        key = os.environ.get(variable, "").strip()
        if not re.fullmatch("[!-~]*", key):
            raise EmlabError(f"The key in {variable} holds characters that no key has; set it again.")
        if not key:
            raise EmlabError(
                f"The endpoint {self.base_url} needs a key; put it into the environment variable {variable}."
            )
        return key


def check_variable(name: str | None) -> None:
    """EmlabError where `name` is none of an environment variable, such as a key itself, which is then not repeated."""
    if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise EmlabError(
            "A key is given by the name of the environment variable that holds it, in capitals, such as JUDGE_KEY, and "
            "never itself; set the variable and give its name."
        )
