"""The calls to an endpoint: many at a time, tried again, read."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tqdm.auto import tqdm

from emlab.data.thoughts import CLOSING
from emlab.errors import EmlabError
from emlab.models.completion import Completion, Done, Request, first_numbers
from emlab.models.server import Server

T = TypeVar("T")

_BROKEN_OFF = ("content_filter", "abort", "error")
"""What servers call an answer that is none: OpenAI and Azure; vLLM and SGLang."""
_THOUGHTS = ("reasoning_content", "reasoning")
"""Where servers put thoughts that they have taken out of the text: DeepSeek, vLLM, SGLang and llama.cpp; OpenRouter."""
NUMBER_TOKENS = 4
"""Tokens asked for where a number is: one would do, the others show whether a number is written in pieces."""


class Calls:
    """The calls of one `complete`."""

    def __init__(self, endpoint: Server, requests: Sequence[Request], done: Done | None) -> None:
        self.endpoint, self.requests, self.done = endpoint, requests, done
        self.free = asyncio.Semaphore(endpoint.concurrency)
        self.turn = asyncio.Lock()
        self.writer = ThreadPoolExecutor(1)
        self.heard = False
        self.limit = "max_tokens"

    async def all(self) -> list[Completion]:
        import openai

        shown = self.endpoint
        self.key = shown.key()
        # A server on this machine is not behind the proxy that the environment may name.
        own = openai.DefaultAsyncHttpxClient(trust_env=False) if shown.is_local else None
        # The client would send some key, and what the environment says of an account at OpenAI, to any server.
        kept_back = [] if self.key else ["Authorization"]
        kept_back += [] if shown.is_openai else ["OpenAI-Organization", "OpenAI-Project"]
        self.headers = {name: openai.Omit() for name in kept_back}
        client = openai.AsyncOpenAI(
            api_key=self.key or "none",
            base_url=shown.base_url,
            timeout=shown.timeout,
            max_retries=0,
            http_client=own,
        )
        self.bar = tqdm(
            total=len(self.requests), desc=shown.model, unit="call", disable=not shown.progress, leave=False
        )
        try:
            with self.writer:
                async with client, asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self.one(client, i)) for i in range(len(self.requests))]
        except* EmlabError as group_error:
            raise group_error.exceptions[0] from None
        finally:
            self.bar.close()
        return [task.result() for task in tasks]

    async def one(self, client: Any, i: int) -> Completion:
        import openai

        request, last, limit = self.requests[i], "", self.limit
        for attempt in range(self.endpoint.retries + 1):
            try:
                # The place is free for others while this call waits to be tried again.
                async with self.place(attempt):
                    limit = self.limit
                    response = await self.send(client, request)
                self.heard = True
                return await self.finish(i, self.read(request, response))
            except (openai.APIConnectionError, openai.APIStatusError) as error:
                last = self.said(error)
                self.heard = self.heard or isinstance(error, openai.APIStatusError)
                if limit == "max_tokens" and "max_completion_tokens" in last:
                    self.limit = "max_completion_tokens"  # as OpenAI's newer models call it
                    continue
                if not _may_pass(error):
                    return await self.finish(i, Completion(failure=self.refused(error, last)))
                if attempt < self.endpoint.retries:
                    self.endpoint.usage.retries += 1
                    await asyncio.sleep(self.wait(error, attempt))
            except (openai.APIError, ValueError) as error:  # no JSON came, or a text cannot be sent as JSON
                return await self.finish(i, Completion(failure=f"no chat completion: {self.said(error)}"))
        if not self.heard:
            raise EmlabError(f"{self.endpoint.base_url} does not answer ({last}); check that the server runs there.")
        return await self.finish(i, Completion(failure=last))

    @contextlib.asynccontextmanager
    async def place(self, attempt: int) -> AsyncIterator[None]:
        """A place among the calls under way. New calls come for theirs one by one, so that a call that is tried again
        need not wait for all of them, and then alone, when they are done."""
        async with self.turn if attempt == 0 else contextlib.nullcontext():
            await self.free.acquire()
        try:
            yield
        finally:
            self.free.release()

    async def send(self, client: Any, request: Request) -> Any:
        more: dict[str, Any] = {self.limit: NUMBER_TOKENS if request.numbers else request.max_tokens}
        if request.numbers:
            more |= {"logprobs": True, "top_logprobs": 20}
        return await client.chat.completions.create(
            model=self.endpoint.model,
            messages=[dict(turn) for turn in request.messages],
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
        return first_numbers(tokens, f"{self.endpoint.model} at {self.endpoint.base_url}")

    async def finish(self, i: int, found: Completion) -> Completion:
        usage = self.endpoint.usage
        if not found.failure:
            usage.calls += 1
            usage.prompt_tokens += found.prompt_tokens
            usage.completion_tokens += found.completion_tokens
        if self.done is not None:
            # It may wait for the disk, which must not hold up the other calls; nor may stopping these lose the answer.
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(self.writer, self.done, i, found))
        cost = self.endpoint.dollars(usage.prompt_tokens, usage.completion_tokens)
        money = {} if cost is None else {"cost": f"${cost:.2f}"}
        self.bar.set_postfix(tokens=usage.prompt_tokens + usage.completion_tokens, **money, refresh=False)
        self.bar.update()
        return found

    def wait(self, error: Exception, attempt: int) -> float:
        """Seconds before the next attempt: what the server asks for, or twice the last pause, spread a little."""
        with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError):
            return min(60.0, max(0.0, float(error.response.headers["retry-after"])))  # type: ignore[attr-defined]
        return min(30.0, self.endpoint.pause * 2**attempt) * random.uniform(0.75, 1.25)

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
        if status in (401, 403) and self.key is None:
            raise EmlabError(
                f"{self.endpoint.base_url} was sent no key and refuses to answer ({said}); put its key into an "
                "environment variable and name that, by --model-key or --judge-key or as key_variable."
            )
        if status in (401, 403):
            raise EmlabError(
                f"{self.endpoint.base_url} refuses the key in {self.endpoint.key_variable or 'OPENAI_API_KEY'} "
                f"({said}); check it."
            )
        if status == 404:
            raise EmlabError(
                f"{self.endpoint.base_url} knows no model {self.endpoint.model!r} ({said}); check name and address."
            )
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


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, also inside a notebook, where an event loop is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    result: list[T] = []
    errors: list[BaseException] = []
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []
    # A thread whose join() was interrupted cannot be joined again (Python 3.11), an event can be waited for twice.
    began, ended = threading.Event(), threading.Event()

    async def watched() -> T:
        task = asyncio.ensure_future(work)
        running.append((asyncio.get_running_loop(), task))
        began.set()
        return await task

    def target() -> None:
        try:
            result.append(asyncio.run(watched()))
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            errors.append(error)
        finally:
            began.set()
            ended.set()

    threading.Thread(target=target, daemon=True).start()
    try:
        ended.wait()
    except KeyboardInterrupt:
        # No further call may be made, or paid for, behind the back of whoever pressed stop.
        began.wait()
        for loop, task in running:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(task.cancel)
        ended.wait()
        raise
    if errors:
        raise errors[0]
    return result[0]
