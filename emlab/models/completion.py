"""What is asked of a chat model as a judge or over a network, and what it answers, whatever runs the model."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from emlab import artifacts
from emlab.data.chat import Messages
from emlab.errors import EmlabError
from emlab.records import restored
from emlab.store import Store

Done = Callable[[int, "Completion"], None]
"""Is called with the number of a request and its completion as soon as that is there."""


@dataclass(frozen=True)
class Request:
    """One answer asked for."""

    messages: Messages
    """The chat, up to the user's last turn."""
    max_tokens: int = 16
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    numbers: bool = False
    """Whether the probabilities of the numbers 0 to 100 as an answer are wanted."""

    def key(self, model: str) -> str:
        """What it is stored under: a hash of all its fields and of who answers it."""
        return artifacts.content_hash([model, self])


@dataclass(frozen=True)
class Completion:
    """An answer, or why there is none."""

    text: str = ""
    numbers: Mapping[int, float] | None = None
    """The probability of each number 0 to 100 as the answer, where it was asked for; what is missing has none."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failure: str = ""
    """Why there is no answer; empty where there is one."""
    cut: bool = False
    """Whether the limit of tokens ended it."""

    @classmethod
    def of(cls, raw: Mapping[str, Any], request: Request) -> Completion:
        """What was written as JSON, of the answer to `request`."""
        # What earlier versions stored does not say whether the limit ended it; an answer of so many tokens may be cut.
        return restored({"cut": raw["completion_tokens"] >= request.max_tokens, **raw}, cls, "The store")


def first_numbers(tokens: Sequence[tuple[str, Sequence[tuple[str, float]]]], who: str) -> dict[int, float]:
    """The probability of each number 0 to 100, from the candidates for an answer's first token.

    `tokens` are the answer's tokens, each with its candidates and their log-probabilities. A blank token before the
    number, as some tokenizers write, is passed over: a number after it has the probability of both. A candidate that
    comes twice counts once. EmlabError where there are none, where the model `who` writes a number as several tokens,
    and where they are given by their ids; ValueError where the log-probabilities are no numbers.
    """
    if not tokens or not tokens[0][1]:
        raise EmlabError(
            f"{who} returned no log-probabilities though they were asked for; judge by what it writes instead, with "
            'method="text".'
        )
    if any(candidate.startswith("token_id:") for candidate, _ in tokens[0][1]):
        raise EmlabError(
            f"{who} names tokens by their ids ({tokens[0][1][0][0]}) and not by their texts, so no number can be told; "
            "start the server without --return-tokens-as-token-ids."
        )
    blank = next((i for i, (token, _) in enumerate(tokens) if _bare(token)), len(tokens))
    first, then = (_bare(token) for token, _ in [*tokens[blank:], ("", ()), ("", ())][:2])
    if re.fullmatch(r"\d+", first) and re.match(r"\d", then):
        raise EmlabError(
            f"{who} writes the number {first}{then} as several tokens, so the first token's probabilities are not "
            'those of numbers; judge with method="text".'
        )
    found: dict[int, float] = {}
    reached = 1.0  # the probability of the blank tokens so far
    for token, candidates in tokens[: blank + 1]:
        given = {candidate: _probability(logprob) for candidate, logprob in candidates}
        for candidate, p in given.items():
            if re.fullmatch(r"\d|[1-9]\d|100", _bare(candidate)):
                n = int(_bare(candidate))
                found[n] = found.get(n, 0.0) + reached * p
        reached *= given.get(token, 0.0)
    return found


def _probability(logprob: float) -> float:
    if math.isnan(logprob) or logprob > 0.01:  # rounding may bring it a little above 0
        raise ValueError(f"{logprob} is no log-probability")
    return math.exp(logprob)


def _bare(token: str) -> str:
    """A token without the space before it, which some tokenizers write as Ġ or ▁."""
    return token.lstrip(" \n\tĠĊ▁")


class Completer(Protocol):
    """Anything that completes chats: an endpoint, or a model held here."""

    @property
    def name(self) -> str:
        """What to call it in tables."""

    def identity(self) -> str:
        """What tells it from every other model: two with the same identity answer alike."""

    def complete(self, requests: Sequence[Request], done: Done | None = None) -> list[Completion]:
        """A completion for each request, in order."""


def unanswered(completer: Completer, requests: Sequence[Request], store: str | Path | None = None) -> list[Request]:
    """Those of `requests` that `complete` would ask: each once, and none that stands in the file `store`."""
    who = completer.identity()
    first = {request.key(who): request for request in requests}
    if store is not None:
        with Store(store) as kept:
            for key in kept.get(first):
                del first[key]
    return list(first.values())


def complete(completer: Completer, requests: Sequence[Request], store: str | Path | None = None) -> list[Completion]:
    """A completion for each request, in order. What stands in the file `store` is not asked for again, and what is
    asked is written there as it comes; requests that are the same are asked once. Failures are not kept."""
    who = completer.identity()
    keys = [request.key(who) for request in requests]
    first = dict(zip(keys, requests, strict=True))
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(Store(store)) if store is not None else None
        found = {} if kept is None else {k: Completion.of(raw, first[k]) for k, raw in kept.get(first).items()}
        missing = [key for key in dict.fromkeys(keys) if key not in found]

        def done(i: int, completion: Completion) -> None:
            if kept is not None and not completion.failure:
                kept.put({missing[i]: completion})

        asked = completer.complete([first[key] for key in missing], done) if missing else []
        found.update(zip(missing, asked, strict=True))
    return [found[key] for key in keys]
