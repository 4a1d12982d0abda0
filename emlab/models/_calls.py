"""The calls to an endpoint: many at a time, tried again, read.

The client's own retries would hold a place among the calls under way while they wait, and their pauses are fixed.
"""

from __future__ import annotations

import contextlib
import heapq
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from tqdm.auto import tqdm

from emlab.data.thoughts import CLOSING
from emlab.errors import EmlabError
from emlab.models.completion import Completion, Done, Request, first_numbers
from emlab.models.server import OPENAI_KEY, Server

_BROKEN_OFF = ("content_filter", "abort", "error")
"""What servers call an answer that is none: OpenAI and Azure; vLLM and SGLang."""
_THOUGHTS = ("reasoning_content", "reasoning")
"""Where servers put thoughts that they have taken out of the text: DeepSeek, vLLM, SGLang and llama.cpp; OpenRouter."""
NUMBER_TOKENS = 4
"""Tokens asked for where a number is: one would do, the others show whether a number is written in pieces."""


class Calls:
    """The calls of one `complete`: each of a few threads makes one at a time, a thread of its own counts and keeps."""

    def __init__(self, server: Server, requests: Sequence[Request], done: Done | None) -> None:
        self.server, self.requests, self.done = server, requests, done
        self.new = iter(range(len(requests)))
        self.again: list[tuple[float, int, int]] = []
        """A heap of calls to be tried again: when, which, and how often it has been tried."""
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.writer = ThreadPoolExecutor(1)
        self.found: SimpleQueue[tuple[int, Completion | BaseException]] = SimpleQueue()
        self.heard = False
        self.limit = "max_tokens"

    def all(self) -> list[Completion]:
        """The completions, in order; stopped by an error or from the keyboard, no further call is made."""
        import openai

        server, n = self.server, len(self.requests)
        self.key = server.key()
        # The client would send some key, and what the environment says of an account at OpenAI, to any server.
        kept_back = [] if self.key else ["Authorization"]
        kept_back += [] if server.is_openai else ["OpenAI-Organization", "OpenAI-Project"]
        self.headers = {name: openai.Omit() for name in kept_back}
        # A server on this machine is not behind the proxy that the environment may name.
        own = openai.DefaultHttpxClient(trust_env=False) if server.is_local else None
        self.client = openai.OpenAI(
            api_key=self.key or "none", base_url=server.base_url, timeout=server.timeout, max_retries=0, http_client=own
        )
        self.bar = tqdm(total=n, desc=server.model, unit="call", disable=not server.progress, leave=False)
        answers: dict[int, Completion] = {}
        with self.client, self.bar, self.writer:  # the writer keeps what has come before it ends
            try:
                for _ in range(min(server.concurrency, n)):
                    threading.Thread(target=self.work, daemon=True).start()
                while len(answers) < n:
                    i, found = self.found.get()
                    if isinstance(found, BaseException):
                        raise found from None
                    answers[i] = found
            finally:
                self.stop.set()
        return [answers[i] for i in range(n)]

    def work(self) -> None:
        """Make calls until there are no more; what raises in one ends all."""
        while (call := self.next()) is not None:
            due, i, attempt = call
            if self.stop.wait(max(0.0, due - time.monotonic())):
                return
            try:
                if (found := self.one(i, attempt)) is not None:
                    self.writer.submit(self.finish, i, found)
            except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
                self.found.put((i, error))
                return

    def next(self) -> tuple[float, int, int] | None:
        """A call that has waited long enough to be tried again, else a new one, else one that must wait longer."""
        with self.lock:
            if self.again and self.again[0][0] <= time.monotonic():
                return heapq.heappop(self.again)
            if (i := next(self.new, None)) is not None:
                return 0.0, i, 0
            return heapq.heappop(self.again) if self.again else None

    def one(self, i: int, attempt: int) -> Completion | None:
        """The completion of a request; None where it is to be tried again."""
        import openai

        limit = self.limit
        try:
            response = self.send(self.requests[i], limit)
            self.heard = True
            return self.read(self.requests[i], response)
        except (openai.APIConnectionError, openai.APIStatusError) as error:
            said = self.said(error)
            self.heard = self.heard or isinstance(error, openai.APIStatusError)
            renamed = limit == "max_tokens" and "max_completion_tokens" in said  # as OpenAI's newer models call it
            if renamed:
                self.limit = "max_completion_tokens"
            elif not _may_pass(error):
                return Completion(failure=self.refused(error, said))
            elif attempt == self.server.retries:
                if self.heard:
                    return Completion(failure=said)
                url = self.server.base_url
                raise EmlabError(f"{url} does not answer ({said}); check that the server runs there.") from None
            with self.lock:
                self.server.usage.retries += not renamed
                pause = 0.0 if renamed else self.wait(error, attempt)
                heapq.heappush(self.again, (time.monotonic() + pause, i, attempt + (not renamed)))
            return None
        except (openai.APIError, ValueError) as error:  # no JSON came, or a text cannot be sent as JSON
            return Completion(failure=f"no chat completion: {self.said(error)}")

    def send(self, request: Request, limit: str) -> Any:
        more: dict[str, Any] = {limit: NUMBER_TOKENS if request.numbers else request.max_tokens}
        if request.numbers:
            more |= {"logprobs": True, "top_logprobs": 20}
        return self.client.chat.completions.create(
            model=self.server.model,
            messages=[dict(turn) for turn in request.messages],  # type: ignore[misc]
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed % 2**31,
            extra_headers=self.headers,
            **more,
        )

    def read(self, request: Request, response: Any) -> Completion:
        # The client checks nothing of what a server sends: each field may be missing, or something else.
        try:
            choice = response.choices[0]
            text = _whole(_said(choice.message))
            given = getattr(choice, "logprobs", None)
            ended = getattr(choice, "finish_reason", None)
            if ended in _BROKEN_OFF:
                return Completion(failure=f"the server broke the reply off ({ended})")
            if request.numbers and not text and not getattr(given, "content", None):
                return Completion(failure="an empty reply")
            declined = not choice.message.content and getattr(choice.message, "refusal", None)
            numbers = ({} if declined else self.numbers(given)) if request.numbers else None
        except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            return Completion(failure=f"no chat completion: {self.said(error)}")
        usage = getattr(response, "usage", None)
        used = (getattr(usage, name, 0) for name in ("prompt_tokens", "completion_tokens"))
        read, written = (n if isinstance(n, int) else 0 for n in used)
        return Completion(text, numbers, read, written, cut=ended == "length")

    def numbers(self, given: Any) -> dict[int, float]:
        """The probability of each number, from the candidates for the first token."""
        tokens = [
            (one.token, [(candidate.token, candidate.logprob) for candidate in one.top_logprobs or ()])
            for one in getattr(given, "content", None) or ()
        ]
        return first_numbers(tokens, f"{self.server.model} at {self.server.base_url}")

    def finish(self, i: int, found: Completion) -> None:
        """Count an answer, keep it, and hand it on."""
        usage = self.server.usage
        if not found.failure:
            usage.calls += 1
            usage.prompt_tokens += found.prompt_tokens
            usage.completion_tokens += found.completion_tokens
        try:
            if self.done is not None:
                self.done(i, found)
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            return self.found.put((i, error))
        cost = self.server.dollars(usage.prompt_tokens, usage.completion_tokens)
        money = {} if cost is None else {"cost": f"${cost:.2f}"}
        self.bar.set_postfix(tokens=usage.prompt_tokens + usage.completion_tokens, **money, refresh=False)
        self.bar.update()
        self.found.put((i, found))

    def wait(self, error: Exception, attempt: int) -> float:
        """Seconds before the next attempt: what the server asks for, or twice the last pause, spread a little."""
        with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError):
            return min(60.0, max(0.0, float(error.response.headers["retry-after"])))  # type: ignore[attr-defined]
        return min(30.0, self.server.pause * 2**attempt) * random.uniform(0.75, 1.25)

    def said(self, error: Any) -> str:
        """The error in a few words, without the key: servers repeat it."""
        status = getattr(error, "status_code", None)
        text = " ".join(str(getattr(error, "message", "") or error or type(error).__name__).split())
        if self.key:
            text = text.replace(self.key, "(key)")
        return f"{status}: {text[:200]}" if status else text[:200]

    def refused(self, error: Any, said: str) -> str:
        """Why this one request failed; EmlabError where all others will fail too."""
        status = getattr(error, "status_code", 0)
        server, url = self.server, self.server.base_url
        if status in (401, 403) and self.key is None:
            raise EmlabError(
                f"{url} was sent no key and refuses to answer ({said}); put its key into an environment variable and "
                "name that, by --model-key or --judge-key or as key_variable."
            )
        if status in (401, 403):
            raise EmlabError(f"{url} refuses the key in {server.key_variable or OPENAI_KEY} ({said}); check it.")
        if status == 404:
            raise EmlabError(f"{url} knows no model {server.model!r} ({said}); check name and address.")
        return said


def _said(message: Any) -> str:
    """The text of a reply. What a server has taken out of it as thoughts, or as a refusal, is put back."""
    thoughts = next((getattr(message, name, None) for name in _THOUGHTS if getattr(message, name, None)), None)
    said = message.content or getattr(message, "refusal", None) or ""
    if not isinstance(thoughts, str) or CLOSING.search(said):
        return said
    return f"<think>{thoughts}</think>{said}" if said else f"<think>{thoughts}"


def _may_pass(error: Any) -> bool:
    """Whether the same request may succeed later: everything but what the server refuses for good."""
    status = getattr(error, "status_code", None)
    return status is None or status in (408, 409, 429) or status >= 500


def _whole(text: str) -> str:
    """The text with a question mark for each half of a character: what is cut off after some tokens may hold one."""
    return text.encode("utf-8", "replace").decode()
