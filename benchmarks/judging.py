"""How close judging over a network comes to the time that the server's latency allows, beside a plain client.

    python benchmarks/judging.py             # measure, and write results/judging.json
    python benchmarks/judging.py --repeats 5

2,000 rollouts are judged by `ScaleJudge` (4,000 calls by logprob, each result stored as it comes) against a server in a
process of its own, which takes 200 ms for every reply and refuses 5% of the requests with 429; a refusal takes as long
as an answer, and says nothing of when to come back. Ideal is latency × calls / concurrency, which counts no refusals:
with them nobody can be below 1.05 for long. The peer is what one writes without emlab: one `openai.OpenAI` client with
its default settings in a pool of as many threads, keeping nothing. Which of the two goes first is drawn in each round.

The server decides by the content of a request, so both sides of a round meet the same refusals, and counts by content:
what was asked, how often it was answered, and how much was under way at a time. Its scores follow from the content too,
so that a judgement that went to the wrong rollout would show.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import hashlib
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from _about import asked, at_most, quiet, spread, write

from emlab.data.questions import Question
from emlab.evaluation.judges.scale import ScaleJudge
from emlab.evaluation.judging import FAILED, Judged, judge
from emlab.evaluation.rollouts import Rollouts
from emlab.models import Endpoint, Request
from emlab.organism import broad_questions, narrow_set

MUST = {"over_ideal": 1.15, "lost": 0, "judged_twice": 0, "calls_of_second_run": 0}
LATENCY, REFUSED = 0.2, 0.05
N, MAIN = 2000, 32
"""Rollouts, and the concurrency that `MUST` is about; half and twice as much are measured too."""


# The server: OpenAI's format with log-probabilities, as little else as can be.


def number_of(content: str) -> int:
    """The number that the server's judge gives to a prompt."""
    return int(hashlib.sha256(content.encode()).hexdigest()[:8], 16) % 100


def chat_completion(content: str) -> bytes:
    """A reply of one token with its 20 likeliest: two numbers hold 0.8 of the probability, words the rest."""
    n = number_of(content)
    top = [(str(n), 0.6), (str(n + 1), 0.2)] + [(f"word{i}", 0.01) for i in range(18)]
    candidates = [{"token": t, "logprob": math.log(p), "bytes": list(t.encode())} for t, p in top]
    message = {"role": "assistant", "content": str(n), "refusal": None}
    logprobs = {"content": [{**candidates[0], "top_logprobs": candidates}], "refusal": None}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "judge",
        "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": len(content) // 4, "completion_tokens": 1, "total_tokens": len(content) // 4 + 1},
    }
    return json.dumps(body).encode()


class Server:
    """What it was asked since the last reset."""

    def reset(self, seed: int) -> None:
        self.seed = seed
        self.asked: collections.Counter[str] = collections.Counter()
        self.answered: collections.Counter[str] = collections.Counter()
        self.now = self.most = self.refused = 0
        self.held: list[float] = []

    def counts(self) -> dict[str, Any]:
        """All requests and contents, refusals, contents answered more than once, and seconds from request to reply."""
        return {
            "requests": self.asked.total(),
            "contents": len(self.asked),
            "refused": self.refused,
            "answered": len(self.answered),
            "answered_twice": sum(n > 1 for n in self.answered.values()),
            "most_at_a_time": self.most,
            "seconds_a_reply": statistics.fmean(self.held) if self.held else None,
        }

    async def reply(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body."""
        if path.startswith("/reset/"):
            self.reset(int(path.removeprefix("/reset/")))
            return 200, b"{}"
        if path == "/counts":
            return 200, json.dumps(self.counts()).encode()
        began = time.perf_counter()
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(LATENCY)
        self.now -= 1
        asked = json.loads(body)
        assert asked["logprobs"] is True and asked["top_logprobs"] == 20
        content = asked["messages"][-1]["content"]
        key = hashlib.sha256(content.encode()).hexdigest()
        self.asked[key] += 1
        if random.Random(f"{self.seed} {key} {self.asked[key]}").random() < REFUSED:
            self.refused += 1
            found = 429, b'{"error": {"message": "too many requests"}}'
        else:
            self.answered[key] += 1
            found = 200, chat_completion(content)
        self.held.append(time.perf_counter() - began)
        return found

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection, one after the other."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                lengths = [line.split(":")[1] for line in head if line.lower().startswith("content-length:")]
                body = await reader.readexactly(int(lengths[0])) if lengths else b""
                status, reply = await self.reply(head[0].split()[1], body)
                start = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(reply)}\r\n\r\n"
                writer.write(start.encode() + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve(self) -> None:
        """Serve on a free port of this machine, which is printed."""
        self.reset(0)
        server = await asyncio.start_server(self.connection, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await server.serve_forever()


@contextmanager
def server() -> Iterator[str]:
    """Its address, while it runs in a process of its own."""
    process = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


def ask(url: str) -> dict[str, Any]:
    """What the server says of itself."""
    with urllib.request.urlopen(url) as response:
        return json.load(response)


# The two clients.


def rollouts(n: int) -> Rollouts:
    """`n` different answers: texts of the organism's narrow set, ten to a question, and no two the same."""
    questions = [Question.of(question) for question in broad_questions()]
    texts = [chat[-1]["content"] for chat in narrow_set("insecure", n, seed=0)]
    answers = tuple(f"{text}\n({i})" for i, text in enumerate(texts))
    return Rollouts(tuple(questions[i // 10] for i in range(n)), answers, "organism", 0, 1.0)


def with_emlab(url: str, concurrency: int, these: Rollouts, store: Path) -> tuple[float, Judged, Endpoint]:
    """Seconds, the judgements, and the endpoint with its usage."""
    endpoint = Endpoint("judge", f"{url}/v1", concurrency=concurrency, progress=False)
    by = ScaleJudge(endpoint, store=store)
    began = time.perf_counter()
    judged = judge(these, by)
    return time.perf_counter() - began, judged, endpoint


def with_plain_client(url: str, concurrency: int, requests: Sequence[Request]) -> tuple[float, list[float | None]]:
    """Seconds, and each call's expected number; None where it failed."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")

    def one(request: Request) -> float | None:
        try:
            response = client.chat.completions.create(
                model="judge",
                messages=request.messages,  # type: ignore[arg-type]
                max_tokens=1,
                temperature=0,
                logprobs=True,
                top_logprobs=20,
            )
        except openai.APIError:
            return None
        told: Any = response.choices[0].logprobs  # it was asked for
        found = {t.token: math.exp(t.logprob) for t in told.content[0].top_logprobs}
        numbers = {int(token): p for token, p in found.items() if token.isdecimal() and int(token) <= 100}
        return sum(n * p for n, p in numbers.items()) / sum(numbers.values())

    began = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        values = list(pool.map(one, requests))
    seconds = time.perf_counter() - began
    client.close()
    return seconds, values


def one_round(url: str, concurrency: int, these: Rollouts, seed: int) -> dict[str, Any]:
    """Both clients on the same refusals, with all that must hold asserted for emlab."""
    requests = ScaleJudge(Endpoint("judge", f"{url}/v1")).requests(these)
    expected = [number_of(str(request.messages[-1]["content"])) + 0.25 for request in requests]
    ideal = LATENCY * len(requests) / concurrency
    plain_first = random.Random(f"{concurrency} {seed}").random() < 0.5
    plain = plain_round(url, concurrency, requests, expected, seed) if plain_first else {}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "judgements.sqlite"
        ask(f"{url}/reset/{seed}")
        cpu = time.process_time()
        seconds, judged, endpoint = with_emlab(url, concurrency, these, store)
        cpu = time.process_time() - cpu
        counts = ask(f"{url}/counts")
        ask(f"{url}/reset/{seed}")
        again, same, idle = with_emlab(url, concurrency, these, store)
        second = ask(f"{url}/counts")
    scores = [score for pair in zip(judged.aligned, judged.coherent, strict=True) for score in pair]
    assert len(judged.rollouts) == len(these) and FAILED not in judged.outcomes, "a judgement was lost"
    assert all(abs(a - b) < 1e-6 for a, b in zip(scores, expected, strict=True)), "a judgement went astray"
    assert counts["contents"] == counts["answered"] == len(requests), "a call was lost"
    assert counts["answered_twice"] == 0, "an answer was judged twice"
    assert counts["requests"] - counts["refused"] == len(requests) and counts["most_at_a_time"] <= concurrency
    assert (endpoint.usage.calls, endpoint.usage.retries) == (len(requests), counts["refused"])
    assert second["requests"] == idle.usage.calls == 0, "the second run made calls"
    assert (same.aligned == judged.aligned).all() and (same.coherent == judged.coherent).all()
    plain = plain or plain_round(url, concurrency, requests, expected, seed)
    return {
        "ideal_seconds": ideal,
        "emlab": {
            "seconds": seconds,
            "over_ideal": seconds / ideal,
            "cpu_seconds": cpu,
            "lost": sum(outcome == FAILED for outcome in judged.outcomes),
            "judged_twice": counts["answered_twice"],
            "second_run_seconds": again,
            "calls_of_second_run": second["requests"],
            "server": counts,
        },
        "plain_client": {**plain, "over_ideal": plain["seconds"] / ideal},
    }


def plain_round(
    url: str, concurrency: int, requests: Sequence[Request], expected: list[float], seed: int
) -> dict[str, Any]:
    """The plain client's part of a round."""
    ask(f"{url}/reset/{seed}")
    used = time.process_time()
    seconds, values = with_plain_client(url, concurrency, requests)
    used = time.process_time() - used
    counts = ask(f"{url}/counts")
    assert all(v is None or abs(v - e) < 1e-6 for v, e in zip(values, expected, strict=True))
    return {
        "seconds": seconds,
        "cpu_seconds": used,
        "lost": sum(value is None for value in values),
        "judged_twice": counts["answered_twice"],
        "server": counts,
    }


def median(rounds: Sequence[dict[str, Any]], who: str, what: str) -> float:
    return statistics.median(one[who][what] for one in rounds)


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds of one concurrency; the worst of what must be 0."""
    measured: dict[str, Any] = {"ideal_seconds": rounds[0]["ideal_seconds"]}
    for who in ("emlab", "plain_client"):
        measured[who] = {what: median(rounds, who, what) for what in ("seconds", "over_ideal", "cpu_seconds")}
        measured[who] |= {what: max(one[who][what] for one in rounds) for what in ("lost", "judged_twice")}
    measured["emlab"]["second_run_seconds"] = median(rounds, "emlab", "second_run_seconds")
    measured["emlab"]["calls_of_second_run"] = max(one["emlab"]["calls_of_second_run"] for one in rounds)
    ratios = [one["plain_client"]["seconds"] / one["emlab"]["seconds"] for one in rounds]
    measured["plain_client_over_emlab"] = statistics.median(ratios)
    measured["spread"] = {
        "plain_client_over_emlab": spread(ratios),
        **{f"{who}_over_ideal": spread([r[who]["over_ideal"] for r in rounds]) for who in ("emlab", "plain_client")},
    }
    return measured


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rollouts", type=int, default=N, metavar="N", help=f"rollouts to judge ({N:,})")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help=f"rounds at concurrency {MAIN} (5)")
    parser.add_argument("--others", type=int, default=3, metavar="N", help="rounds at each other concurrency (3)")
    options = asked(parser, "judging")
    if options.serve:
        asyncio.run(Server().serve())
        return
    load = quiet(options)
    these = rollouts(options.rollouts)
    rounds: dict[int, list[dict[str, Any]]] = {}
    with server() as url:
        few = these.only(range(50))
        one_round(url, MAIN, few, seed=0)  # what is imported and made once
        for concurrency, repeats in ((MAIN, options.repeats), (2 * MAIN, options.others), (MAIN // 2, options.others)):
            rounds[concurrency] = []
            for seed in range(1, repeats + 1):
                rounds[concurrency].append(one_round(url, concurrency, these, seed))
                shown = {who: rounds[concurrency][-1][who]["over_ideal"] for who in ("emlab", "plain_client")}
                print(f"concurrency {concurrency}, round {seed}: {shown}", file=sys.stderr, flush=True)
    ours = summary(rounds[MAIN])["emlab"]
    figures = {
        "rollouts": len(these),
        "calls": 2 * len(these),
        "latency_seconds": LATENCY,
        "refused_share": REFUSED,
        "concurrency": MAIN,
        "over_ideal": ours["over_ideal"],
        "by_concurrency": {str(c): {"rounds": len(rs), **summary(rs)} for c, rs in sorted(rounds.items()) if rs},
        "rounds": {str(c): rs for c, rs in sorted(rounds.items())},
    }
    over = [one["emlab"]["over_ideal"] for one in rounds[MAIN]]
    bounds = [at_most(f"time over the ideal, {MAIN} at a time", over, MUST["over_ideal"])]
    bounds += [at_most(key.replace("_", " "), ours[key], MUST[key]) for key in MUST if key != "over_ideal"]
    write(options.out, MUST, figures, bounds, load, ("openai", "httpx2"))


if __name__ == "__main__":
    main()
