"""A chat model behind an OpenAI-compatible endpoint: OpenAI itself, vLLM, SGLang, llama.cpp, `transformers serve`.

It samples answers (`generate`, as a `LanguageModel` does) and completes a judge's requests (`complete`): many at a
time, tried again with growing pauses when the server is busy, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emlab.data.chat import Messages
from emlab.data.prompts import prompts_of
from emlab.data.thoughts import split_thoughts
from emlab.errors import EmlabError
from emlab.models import token_counts
from emlab.models._calls import NUMBER_TOKENS, Calls
from emlab.models.completion import Completion, Done, Request, complete
from emlab.models.server import Server


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
class Endpoint(Server):
    """One model of one server. The key is read from the environment when a call is made, and kept nowhere."""

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
        """One answer a prompt, as `LanguageModel.generate`.

        EmlabError where an answer was not to be had.

        Args:
            prompts: Questions or chats.
            max_new_tokens: The longest answer.
            temperature: 0 takes the likeliest token.
            seed: Of the first prompt, counted on for the others; or one for each. Its effect is up to the server.
            batch_size: Means nothing here, as the calls are many at a time by themselves.
            edits: None can be: EmlabError where there are any.
            top_p: The likeliest tokens that together reach this share are sampled from; 1 means all.
            progress: Means nothing here; see `Endpoint.progress`.
            store: A file that keeps each answer as it comes, and is asked first.
            thoughts: Whether to keep what a thinking model thinks before it answers, between its marks.
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
        why.

        Args:
            prompts: Questions or chats.
            max_new_tokens: The longest answer.
            temperature: 0 takes the likeliest token.
            seed: Of the first prompt, counted on for the others; or one for each.
            top_p: The likeliest tokens that together reach this share are sampled from.
            store: A file that keeps each answer as it comes, and is asked first.
        """
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
        return Calls(self, requests, done).all() if requests else []
