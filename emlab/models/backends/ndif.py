"""Models that nobody can hold: NDIF runs them, and is sent what to read and to edit (https://ndif.us).

A request is a ``with`` block of nnsight, whose source travels with the values it names. So that the far end needs no
emlab, an edit goes there as tensors: where it acts, and what it adds or projects out. Edits that hold a function of
this process (a latent's encoder, a monitor) are refused. Decoding is one request, with its loop and its cache on the
far end. A metric to be differentiated stays here: its gradient by the logits is sent, and the chain rule does the rest.

The key is read from NDIF_API_KEY. What comes back is unpickled by nnsight, so ask only a server that you trust.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emlab.data.prompts import Prompt
from emlab.errors import EmlabError
from emlab.interventions import Ablate, Edit, Steer, Tokens, where
from emlab.models.backends.nnsight_trace import NNsightBackend
from emlab.models.backends.places import Act, check_edits, check_site, width_of
from emlab.models.loading import first_line
from emlab.models.token_model import TokenModel
from emlab.sites import Site

KEY = "NDIF_API_KEY"
"""The environment variable that holds the key."""

Step = tuple[str, Tensor, Tensor, Tensor]
"""An edit as it is sent: "add" or "project"; where in the prompt, bool (batch, position, 1); at which decoded tokens,
bool (vocabulary, 1); and what, (d_model,) or (batch, 1, d_model) to add, or an orthonormal basis (n, d_model),
which with a dimension more in front is each row's own."""

Place = tuple[Any, str, tuple[int, int] | None, bool, list[Step]]
"""nnsight's module, "input" or "output", the columns of a head (None: all), whether what comes of the edits is written
into the tensor itself since others read it too (resid_mid), and the edits there."""


def remote_model(
    name: str, adapter: str | None = None, revision: str | None = None, host: str | None = None
) -> NDIFBackend:
    """A model of the Hugging Face Hub as NDIF runs it, such as ``meta-llama/Llama-3.1-405B-Instruct``.

    Only its config and tokenizer are downloaded. Whether the model runs there is said by the first request. EmlabError
    without a key, and where config or tokenizer cannot be had.

    Args:
        name: The model's name on the Hub.
        adapter: A LoRA adapter on the Hub for it, which NDIF applies for each request.
        revision: A branch, tag or commit of the Hub; None takes the newest.
        host: The URL of another server that runs NDIF's software; None is NDIF's own.
    """
    key_of(host)
    from nnsight import TransformersModel
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        model = TransformersModel(
            name, task="text-generation", tokenizer=tokenizer, revision=revision, peft=adapter, dispatch=False
        )
    except Exception as error:  # the Hub's, the tokenizers' and peft's errors have no common kind
        raise EmlabError(
            f"The config and the tokenizer of {name} cannot be had ({first_line(error)[:200]}); check the name, the "
            "network, and the access you have."
        ) from error
    return NDIFBackend(model, host)


def key_of(host: str | None) -> str | None:
    """The key for NDIF, from the environment or nnsight's own configuration. A host of one's own may need none."""
    from nnsight.schema.config import CONFIG

    key = os.environ.get(KEY) or CONFIG.API.APIKEY
    if not key and host is None:
        raise EmlabError(f"NDIF asks for a key; get one at https://login.ndif.us and put it into {KEY}.")
    return key


class NDIFBackend(NNsightBackend):
    """A model of nnsight whose passes run on NDIF; what comes back is on the CPU."""

    library = "NDIF"

    def __init__(self, model: Any, host: str | None = None) -> None:
        super().__init__(model, lambda: self._language.sentence_ends)
        self.host = host
        """The server's URL; None is NDIF's."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def name(self) -> str:
        """The model's name on the Hub, and its adapter's."""
        adapter = getattr(self.model, "peft", None)
        return f"{self.model.repo_id}+{Path(adapter).name}" if adapter else str(self.model.repo_id)

    @property
    def _language(self) -> TokenModel:
        return TokenModel(None, self.model.tokenizer, self.name)

    def tokens(self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None) -> Tokens:
        """Questions, chats or token ids as one batch, padded on the left (see `LanguageModel.rows`)."""
        pad = self.model.tokenizer.pad_token_id
        return Tokens.pad(*self._language.rows(prompts, answers), 0 if pad is None else pad)

    def run(self, inputs: Mapping[str, Any], acts: Mapping[Site, Act], stop_at: Site | None) -> Tensor | None:
        raise EmlabError("NDIF runs no functions of this process; use capture, logits, generate or gradients.")

    def capture(
        self, tokens: Tokens, sites: Iterable[Site | str] | Site | str, edits: Sequence[Edit] = ()
    ) -> dict[Site, Tensor]:
        wanted = [Site.parse(site) for site in ([sites] if isinstance(sites, Site | str) else sites)]
        if not wanted:
            raise EmlabError("There is no site to capture; name at least one, such as resid_post.1.")
        last, edits = max(wanted, key=lambda site: site.order), self._with(edits)
        self._editor(edits, tokens)
        plan = self._plan([edit for edit in edits if edit.site.order <= last.order], tokens, wanted)
        found = self._ask(_read, _inputs(tokens), list(plan.values()), [site in wanted for site in plan])
        return dict(zip([site for site in plan if site in wanted], found, strict=True))

    def logits(self, tokens: Tokens, edits: Sequence[Edit] = ()) -> Tensor:
        edits = self._with(edits)
        self._editor(edits, tokens)
        plan = self._plan(edits, tokens)
        return self._ask(_read, _inputs(tokens), list(plan.values()), [False] * len(plan))[0]

    def generate(self, tokens: Tokens, edits: Sequence[Edit] = (), max_new_tokens: int = 48) -> Tensor:
        if not bool(tokens.real[:, -1].all()):
            raise EmlabError("The prompts to continue must be padded on the left; batch them with Tokens.pad.")
        edits = self._with(edits)
        self._editor(edits, tokens)
        plan = self._plan(edits, tokens)
        if max_new_tokens < 1:
            return torch.empty(len(tokens.ids), 0, dtype=torch.long)
        return self._ask(_decode, _inputs(tokens), list(plan.values()), max_new_tokens)

    def gradients(
        self, tokens: Tokens, site: Site | str, metric: Callable[[Tensor], Tensor], edits: Sequence[Edit] = ()
    ) -> Tensor:
        site = Site.parse(site)
        plan = self._plan(self._with(edits), tokens, [site])
        with torch.enable_grad():
            leaf = self.logits(tokens, edits).float().requires_grad_()
            value = metric(leaf)
            if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
                raise EmlabError("The metric must make one number out of the logits, by operations of PyTorch.")
            weights = torch.autograd.grad(value, leaf)[0]
        return self._ask(_differentiate, _inputs(tokens), list(plan.values()), list(plan).index(site), weights)

    def _plan(self, edits: Sequence[Edit], tokens: Tokens, sites: Iterable[Site] = ()) -> dict[Site, Place]:
        """The sites to edit or read, in the order in which a pass reaches them, and what is to be done there."""
        check_edits(edits, self.config)
        steps: dict[Site, list[Step]] = {}
        for edit in edits:
            steps.setdefault(edit.site, []).append(self._step(edit, tokens))
        for site in sites:  # after the edits, also where all heads are edited and one is read
            steps.setdefault(site, [])
        for site in steps:
            check_site(site, self.config)
        return {site: self._place(site, steps[site]) for site in sorted(steps, key=lambda site: site.order)}

    def _place(self, site: Site, steps: list[Step]) -> Place:
        hook, width = site.hook(self.config.model_type), width_of(site, self.config)
        columns = None if site.head is None else (site.head * width, (site.head + 1) * width)
        return self._module(hook.module), hook.side, columns, site.stream == "resid_mid", steps

    def _step(self, edit: Edit, tokens: Tokens) -> Step:
        if isinstance(edit, Steer):
            kind, vectors = "add", edit._push
        elif isinstance(edit, Ablate):
            kind, vectors = "project", edit._basis
        else:
            raise EmlabError(
                f"A {type(edit).__name__} holds a function of this process, and NDIF is sent tensors only; steer or "
                f"ablate at {edit.site}, or take a model that you hold."
            )
        ends = self._sentence_ends() if isinstance(edit.positions, str) and edit.positions == "sentence" else None
        every = torch.arange(self.config.get_text_config().vocab_size)[:, None]
        if isinstance(edit.positions, Tensor):  # it is of the prompt
            decoded = torch.zeros_like(every, dtype=torch.bool)
        else:
            true = torch.ones_like(every, dtype=torch.bool)
            decoded = where(edit.positions, Tokens(every, true, true), ends)
        return kind, where(edit.positions, tokens, ends)[..., None].cpu(), decoded, vectors.cpu()

    def _ask(self, request: Callable[..., Any], *given: Any) -> Any:
        """What `request`, which sends a block, brings back. EmlabError, in one sentence, where nothing comes back."""
        from httpx import HTTPError
        from nnsight.intervention.backends.remote import RemoteError
        from nnsight.schema.config import CONFIG
        from websocket import WebSocketException

        CONFIG.API.APIKEY = key_of(self.host)
        server = self.host or CONFIG.API.HOST
        try:
            self.model.to_model_key()
        except (OSError, HTTPError, ValueError) as error:
            raise EmlabError(
                f"The Hugging Face Hub does not say what {self.name} is ({first_line(error)[:200]}), and NDIF knows "
                "models by their names there; check the name and the network."
            ) from error
        try:
            return request(self.model, self.host or True, *given)
        except RemoteError as error:
            raise EmlabError(
                f"{server} did not run the request for {self.name} ({first_line(error)[:300]}); nnsight.status() "
                "tells which models run there."
            ) from error
        except (OSError, HTTPError, WebSocketException, JSONDecodeError, KeyError) as error:
            raise EmlabError(
                f"{server} cannot be reached for {self.name} ({type(error).__name__}: {first_line(error)[:200]}); "
                f"check the network, the key in {KEY}, and whether it is up."
            ) from error


def _inputs(tokens: Tokens) -> dict[str, Tensor]:
    ids, real, positions = tokens.ids.cpu(), tokens.real.long().cpu(), tokens.position_ids.cpu()
    return {"input_ids": ids, "attention_mask": real, "position_ids": positions}


# The blocks below run on the far end: they name nothing but torch, nnsight and what they are given. Only one of them
# has a block inside it, as a server reads the source of those by this file's name, and reads it once.


def _visitor() -> Callable[..., Tensor]:
    """The function that edits at a place. It is made here so that nnsight sends its source, and not emlab's name."""

    def visit(place, ids=None, leaf=False):  # type: ignore[no-untyped-def]
        module, side, columns, over, steps = place
        given = module.output if side == "output" else module.input
        whole = given[0] if isinstance(given, tuple) else given
        first, last = columns or (0, whole.shape[-1])
        h = whole[..., first:last]
        for kind, prompt, decoded, vectors in steps:
            acts = prompt if ids is None else decoded[ids]
            wide, what = h.float(), vectors.to(h.device)
            new = wide + what if kind == "add" else wide - (wide @ what.mT) @ what
            h = torch.where(acts.to(h.device), new.to(h.dtype), h)
        if leaf:
            h = h.detach().clone().requires_grad_()
        new = h if columns is None else torch.cat([whole[..., :first], h, whole[..., last:]], -1)
        if over:
            h = h.clone() if h is not new else h
            new = whole.copy_(new)
        if side == "output":
            module.output = (new, *given[1:]) if isinstance(given, tuple) else new
        else:
            module.input = new
        return h

    return visit


def _read(model: Any, remote: Any, inputs: dict[str, Tensor], plan: list[Place], wanted: list[bool]) -> Any:
    """The activations of the `wanted` places, where the pass ends at the last; the logits where none is wanted."""
    from nnsight import save

    visit, found = _visitor(), None
    with model.trace(**inputs, use_cache=False, remote=remote) as tracer:
        found = save([])
        for number, place in enumerate(plan):
            h = visit(place)
            if wanted[number]:
                found.append(h.detach().clone().cpu())
        if any(wanted):
            tracer.stop()
        found.append(tracer.result.logits.detach().cpu())
    return found


def _decode(model: Any, remote: Any, inputs: dict[str, Tensor], plan: list[Place], n: int) -> Any:
    """The `n` likeliest next tokens, (batch, n)."""
    from nnsight import save

    visit, written = _visitor(), None
    with model.session(remote=remote):
        parts, now, ids, cache = [], inputs, None, None
        for _ in range(n):
            with model.trace(**now, past_key_values=cache, use_cache=True, logits_to_keep=1) as tracer:
                for place in plan:
                    visit(place, ids)
                result = tracer.result
            cache, ids = result.past_key_values, result.logits[:, -1:].detach().argmax(-1).cpu()
            parts.append(ids)
            real = torch.cat([now["attention_mask"], torch.ones_like(ids)], 1)
            now = {"input_ids": ids, "attention_mask": real, "position_ids": now["position_ids"][:, -1:] + 1}
        written = save(torch.cat(parts, 1))
    return written


def _differentiate(
    model: Any, remote: Any, inputs: dict[str, Tensor], plan: list[Place], at: int, weights: Tensor
) -> Any:
    """The gradient of ``(logits * weights).sum()`` by the activation of the place `at`, after its edits."""
    from nnsight import save

    visit, found = _visitor(), None
    with model.trace(**inputs, use_cache=False, remote=remote) as tracer, torch.enable_grad():
        reached = [visit(place, None, i == at) for i, place in enumerate(plan)]
        logits = tracer.result.logits
        found = save(torch.autograd.grad(logits, reached[at], weights.to(logits))[0].cpu())
    return found
