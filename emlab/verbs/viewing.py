"""A playground in the browser: ask the models of a run side by side, and drag the strength of its latent.

It serves this machine alone, and whoever has the address that it prints: requests need its token, the loopback's name
as their host and no other page as their origin, and are small. Nothing is written.
"""

from __future__ import annotations

import json
import secrets
import threading
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from emlab import config, organism, records
from emlab.discovery import Screen, decoder_direction
from emlab.errors import EmlabError, install
from emlab.experiments.material.models import folder_of
from emlab.experiments.persona_features.config import Config
from emlab.experiments.persona_features.sources import load_models, sae_source
from emlab.interventions import Steer
from emlab.models import LanguageModel, edit
from emlab.runs import RESULT
from emlab.saes import encode, fitted_site, load_sae
from emlab.sites import Site
from emlab.training import FineTuned
from emlab.verbs.run_folders import open_run

if TYPE_CHECKING:
    from sae_lens import SAE
    from starlette.applications import Starlette

LARGEST, LONGEST, FURTHEST, MOST_TOKENS = 16_384, 4_000, 5.0, 400
"""Bytes of a request, characters of a question, strength in median residual norms, and tokens of an answer, at most."""


@dataclass(frozen=True, eq=False)
class Playground:
    """Models that can be asked, and a latent that can be added to each."""

    models: Mapping[str, LanguageModel]
    sae: SAE
    latent: int
    scale: float
    """The site's median residual norm, as the run measured it."""
    judge: Any = None
    """The organism's exact judge, where the models are its."""

    def answer(
        self, model: str, question: str, strength: float, seed: int = 0, max_new_tokens: int = 100
    ) -> Iterator[dict[str, Any]]:
        """What happens while an answer is written, as plain values.

        {"text"} as it comes; then {"tokens": [[text, activation of the latent], …]} of the whole answer, the push among
        what is read; then, with a judge, {"lines": [[text, persona or null], …], "aligned", "coherent"}.

        Args:
            model: By its name here.
            question: The user's turn.
            strength: Of the latent, in median residual norms; 0 leaves the model alone.
            seed: Of the sampling.
            max_new_tokens: The longest answer.
        """
        lm = self.models[model]
        site = fitted_site(self.sae, lm)
        direction = decoder_direction(self.sae, self.latent, site)
        edits = [Steer(site, direction, strength, self.scale, "generated")] if strength else []
        text = ""
        for part in _written(lm, question, edits, seed, max_new_tokens):
            text += part
            yield {"text": part}
        if not text.strip():
            return
        read = lm.activations([question], site, "generated", answers=[text], edits=edits)
        values = encode(self.sae, read.values.to(self.sae.device), [self.latent])[:, 0].tolist()
        row = lm.rows([question], [text])[0][0][-len(values) :]
        texts = [lm.tokenizer.decode([token]) for token in row]
        yield {"tokens": [[said, round(value, 3)] for said, value in zip(texts, values, strict=True)]}
        if self.judge is not None:
            said = self.judge.judge(question, text)
            if said is not None:
                lines = zip(text.strip().split("\n"), said.personas, strict=False)
                yield {"lines": [list(line) for line in lines], "aligned": said.aligned, "coherent": said.coherent}


def _written(lm: LanguageModel, question: str, edits: Sequence[Steer], seed: int, most: int) -> Iterator[str]:
    """The answer's text, as it is written."""
    from transformers import TextIteratorStreamer

    streamer = TextIteratorStreamer(lm.tokenizer, skip_prompt=True, skip_special_tokens=True)
    ids = torch.tensor([lm.prompt_ids(question)], device=lm.device)
    how = {"attention_mask": torch.ones_like(ids), "max_new_tokens": most, "streamer": streamer}
    how |= {"eos_token_id": lm.stop_ids, "pad_token_id": lm.stop_ids[0]}
    # As emlab samples, and not as the model's own settings say.
    how |= {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}

    def work() -> None:
        try:
            with torch.random.fork_rng(), edit(lm, edits):  # edits act on the passes of their own thread
                torch.manual_seed(seed)
                lm.model.generate(ids, **how)
        finally:
            streamer.end()

    # Left only when the model has ended, also where nobody reads on: the next answer draws from the same generator.
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(work)
        yield from streamer
        writing.result()  # raises what the model did


def playground(run: str | Path) -> Playground:
    """The models and the latent of a finished persona-features run; EmlabError for a run without one.

    Args:
        run: Its folder.
    """
    opened = open_run(run)
    latent = opened.summary.get("persona_latent")
    if latent is None:
        raise EmlabError(f"{run} has ranked no latent to view; give a finished run of persona_features that has.")
    settings, site = config.load(opened.folder / "config.yaml", (), Config), Site.parse(latent["site"])
    aligned, _ = load_models(settings)
    narrow = next(model for model, kind in opened.summary["kinds"].items() if kind == "narrow")
    tuned = FineTuned.load(opened.folder / "finetune" / narrow, aligned).model
    kept = opened.folder / "sae" / str(site) / "sae"
    sae = load_sae(kept if kept.is_dir() else str(sae_source(settings, site)))
    scale = records.kept(Screen, opened.folder / "screen" / "plus" / RESULT).scales[site]
    judge = organism.ExactJudge() if folder_of(settings.model)[1] else None
    return Playground({aligned.name: aligned, tuned.name: tuned}, sae, latent["index"], scale, judge)


def application(play: Playground, token: str, hosts: Sequence[str]) -> Starlette:
    """The web application: `/` is the page, `/answer` streams an answer as server-sent events.

    Args:
        play: What is asked.
        token: That every request must have.
        hosts: The names by which it may be called, with their port.
    """
    from jinja2 import Environment, PackageLoader
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    page = Environment(loader=PackageLoader("emlab", "verbs"), autoescape=True).get_template("view.html.jinja")
    busy = threading.Lock()  # one answer at a time: they would share the sampler's state

    def refused(request: Request, given: str) -> Response | None:
        origin = request.headers.get("origin")
        if request.headers.get("host") not in hosts or origin not in (None, *(f"http://{host}" for host in hosts)):
            return PlainTextResponse("This page is for the machine that serves it.", 403)
        if not secrets.compare_digest(given.encode(), token.encode()):
            return PlainTextResponse("The address lacks its token; take the one that emlab view printed.", 403)
        return None

    def safe(response: Response) -> Response:
        policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"
        response.headers.update(
            {
                "Content-Security-Policy": policy,
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-store",
            }
        )
        return response

    async def home(request: Request) -> Response:
        if (no := refused(request, request.query_params.get("token", ""))) is not None:
            return no
        shown = {"models": list(play.models), "latent": play.latent, "token": token, "furthest": FURTHEST}
        return safe(HTMLResponse(page.render(**shown)))

    async def answer(request: Request) -> Response:
        if (no := refused(request, request.headers.get("x-token", ""))) is not None:
            return no
        raw = b""
        async for part in request.stream():
            raw += part
            if len(raw) > LARGEST:
                return PlainTextResponse(f"A request has {LARGEST} bytes at most.", 413)
        try:
            asked = _asked(play, json.loads(raw))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            return PlainTextResponse(f"The request cannot be read ({error}).", 400)

        def events() -> Iterator[str]:
            try:
                with busy:
                    for event in play.answer(**asked):
                        yield f"data: {json.dumps(event)}\n\n"
            except EmlabError as error:
                yield f"data: {json.dumps({'error': str(error)})}\n\n"
            yield 'data: {"done": true}\n\n'

        return safe(StreamingResponse(events(), media_type="text/event-stream"))

    return Starlette(routes=[Route("/", home), Route("/answer", answer, methods=["POST"])])


def _asked(play: Playground, body: Any) -> dict[str, Any]:
    """The arguments of `Playground.answer` in a request. An error of Python's own where something is wrong with it."""
    model, question = str(body["model"]), str(body["question"])
    strength, seed, most = float(body.get("strength", 0)), int(body.get("seed", 0)), int(body.get("tokens", 100))
    if model not in play.models:
        raise ValueError("there is no such model")
    question.encode()  # half of a surrogate pair, which no tokenizer can read, is a ValueError
    if not question.strip() or len(question) > LONGEST:
        raise ValueError(f"a question has 1 to {LONGEST} characters")
    if not -FURTHEST <= strength <= FURTHEST or not 1 <= most <= MOST_TOKENS or not 0 <= seed < 2**31:
        raise ValueError("strength, tokens or seed is out of bounds")
    return {"model": model, "question": question, "strength": strength, "seed": seed, "max_new_tokens": most}


def view(run: str | Path, port: int = 0) -> None:
    """Serve the playground of a run on this machine until it is stopped; its address is printed.

    Args:
        run: The folder of a finished persona-features run.
        port: Of the loopback; 0 takes a free one.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise EmlabError(f"The playground needs starlette and uvicorn: {install('view')}.") from error
    import socket

    play, token = playground(run), secrets.token_urlsafe(24)
    with socket.socket() as bound:
        try:
            bound.bind(("127.0.0.1", port))
        except OSError as error:
            raise EmlabError(f"The port {port} cannot be had ({error.strerror}); take another, or 0.") from error
        at = bound.getsockname()[1]
        hosts = [f"127.0.0.1:{at}", f"localhost:{at}"]
        print(f"http://{hosts[0]}/?{urllib.parse.urlencode({'token': token})}", flush=True)
        served = uvicorn.Config(application(play, token, hosts), log_level="warning", access_log=False)
        uvicorn.Server(served).run(sockets=[bound])
