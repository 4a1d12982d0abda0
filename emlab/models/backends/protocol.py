"""What every backend offers, whichever library holds the model: read it, edit it, decode, differentiate.

A library has one thing to say for itself: how it runs a forward pass with a function at each of some sites. All else is
written here once, so that an edit means the same in every library.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.interventions import Edit, Tokens, check_rows
from emlab.models.backends.hooks import Editor
from emlab.models.backends.places import Act, check_edits, check_site, of_head
from emlab.models.cache import in_place_cache
from emlab.models.logits import columns_from
from emlab.sites import Site


class Reached(Exception):
    """Raised at a site to end a forward pass that has nothing more to tell."""


class Backend(ABC):
    """A model in one library. Between calls it leaves the model as it found it."""

    library: ClassVar[str]
    """The library's name, as in tables."""

    def __init__(self, config: Any, sentence_ends: Callable[[], Tensor] | None = None) -> None:
        self.config = config
        """The Hugging Face config."""
        self._ends = sentence_ends
        self._applied = threading.local()

    @abstractmethod
    def run(self, inputs: Mapping[str, Any], acts: Mapping[Site, Act], stop_at: Site | None) -> Tensor | None:
        """One forward pass on a Hugging Face model's keyword arguments: its logits (batch, position, vocabulary).

        `acts` are in the order in which the pass reaches their sites. With `stop_at` the pass may end at that site, the
        last of them, and there are no logits.
        """

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the token ids go."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.config.model_type} in {self.library}>"

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return self.config.get_text_config().num_hidden_layers

    @contextmanager
    def apply(self, edits: Edit | Sequence[Edit]) -> Iterator[None]:
        """Inside the block `edits` act in all that this thread has the backend do, before those that a call is given.

        Blocks may be nested, and then act in the order they were entered. EmlabError where an edit does not fit the
        model, before the block runs.
        """
        before = self._with(())
        chosen = list(edits) if isinstance(edits, Sequence) else [edits]
        check_edits(chosen, self.config)
        self._applied.edits = [*before, *chosen]
        try:
            yield
        finally:
            self._applied.edits = before

    @property
    def edits(self) -> list[Edit]:
        """Those that this thread has applied."""
        return self._with(())

    def _with(self, edits: Sequence[Edit]) -> list[Edit]:
        """These edits after those that this thread has applied."""
        return [*getattr(self._applied, "edits", ()), *edits]

    @torch.no_grad()
    def capture(
        self, tokens: Tokens, sites: Iterable[Site | str] | Site | str, edits: Sequence[Edit] = ()
    ) -> dict[Site, Tensor]:
        """The activation (batch, position, d_model) of each site, after the edits; the pass ends at the last of them.

        What it holds at pads means nothing: leave it out by ``tokens.real``.
        """
        wanted = [Site.parse(site) for site in ([sites] if isinstance(sites, Site | str) else sites)]
        if not wanted:
            raise EmlabError("There is no site to capture; name at least one, such as resid_post.1.")
        seen: dict[Site, Tensor] = {}

        def read(site: Site, h: Tensor) -> Tensor:
            seen[site] = h.detach().clone()
            return h

        last = max(wanted, key=lambda site: site.order)
        tokens, edits = tokens.to(self.device), self._with(edits)
        before = [edit for edit in edits if edit.site.order <= last.order]
        self._run(tokens, self._editor(edits, tokens, before), {s: partial(read, s) for s in wanted}, last)
        return {site: seen[site] for site in wanted}

    @torch.no_grad()
    def logits(self, tokens: Tokens, edits: Sequence[Edit] = ()) -> Tensor:
        """Next-token logits (batch, position, vocabulary); what they are at pads means nothing."""
        tokens = tokens.to(self.device)
        return self._run(tokens, self._editor(self._with(edits), tokens), {})

    @torch.no_grad()
    def generate(self, tokens: Tokens, edits: Sequence[Edit] = (), max_new_tokens: int = 48) -> Tensor:
        """The likeliest next tokens, (batch, max_new_tokens) int64, the prompt not among them.

        The batch is padded on the left. Edits act on the prompt and on every decoded token, which is read with a
        key-value cache. No token ends an answer: cut each row at the first that does. A generation config's penalties
        and its temperature play no part.
        """
        tokens = tokens.to(self.device)
        if not bool(tokens.real[:, -1].all()):
            raise EmlabError("The prompts to continue must be padded on the left; batch them with Tokens.pad.")
        editor = self._editor(self._with(edits), tokens)
        cache = in_place_cache(self.config, tokens.ids.shape[1] + max_new_tokens)
        now, seen, at = tokens, tokens.real, tokens.position_ids
        written = torch.empty(len(tokens.ids), max(max_new_tokens, 0), dtype=torch.long, device=self.device)
        for step in range(max_new_tokens):
            logits = self._run(now, editor, {}, None, seen, at, cache)
            written[:, step] = logits[:, -1].argmax(-1)
            ids = written[:, step : step + 1]
            every = torch.ones_like(ids, dtype=torch.bool)
            now, seen, at = Tokens(ids, every, every), torch.cat([seen, every], 1), at[:, -1:] + 1
        editor.check()
        return written

    def gradients(
        self, tokens: Tokens, site: Site | str, metric: Callable[[Tensor], Tensor], edits: Sequence[Edit] = ()
    ) -> Tensor:
        """The gradient (batch, position, d_model) of a scalar of the logits by the site's activation after the edits.

        `metric` makes the scalar of the logits (batch, position, vocabulary). The weights gather no gradients.
        """
        site, tokens, leaf = Site.parse(site), tokens.to(self.device), []

        def begin(h: Tensor) -> Tensor:
            leaf.append(h.detach().requires_grad_())
            return leaf[0]

        with torch.enable_grad():
            value = metric(self._run(tokens, self._editor(self._with(edits), tokens), {site: begin}))
            if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
                raise EmlabError("The metric must make one number out of the logits, by operations of PyTorch.")
            return torch.autograd.grad(value, leaf[0])[0]

    def _editor(self, edits: Sequence[Edit], tokens: Tokens, among: Sequence[Edit] | None = None) -> Editor:
        check_edits(edits, self.config)
        for edit in edits:
            check_rows(edit, len(tokens.ids))
        return Editor(edits if among is None else among, self._sentence_ends)

    def _run(
        self,
        tokens: Tokens,
        editor: Editor,
        readers: Mapping[Site, Act],
        stop_at: Site | None = None,
        seen: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Any = None,
    ) -> Any:
        """A pass over `tokens`: at each site first the edits in the order given, then the reader."""
        steps: dict[Site, list[Act]] = {}
        heads = self.config.get_text_config().num_attention_heads
        edits: list[tuple[Site, Act]] = [(e.site, partial(editor.apply, i)) for i, e in enumerate(editor.edits)]
        for site, act in [*edits, *readers.items()]:
            check_site(site, self.config)
            steps.setdefault(site.whole, []).append(of_head(act, site.head, heads))
        editor.see(tokens)
        inputs: dict[str, Any] = {
            "input_ids": tokens.ids,
            "attention_mask": (tokens.real if seen is None else seen).long(),
            "position_ids": tokens.position_ids if positions is None else positions,
            "use_cache": cache is not None,
        }
        if cache is not None:
            inputs |= {"past_key_values": cache, "logits_to_keep": columns_from(-1, tokens.ids)}
        acts: dict[Site, Act] = {
            site: partial(_chained, steps[site]) for site in sorted(steps, key=lambda site: site.order)
        }
        result = self.run(inputs, acts, None if stop_at is None else stop_at.whole)
        if cache is None:  # while it decodes, `generate` asks at the end
            editor.check()
        return result

    def _sentence_ends(self) -> Tensor:
        if self._ends is None:
            raise EmlabError(
                'The positions "sentence" need to know which tokens end a sentence; wrap the model with its tokenizer.'
            )
        return self._ends()


def _chained(acts: Sequence[Act], h: Tensor) -> Tensor:
    """What several functions at a site make of its activation, one after the other."""
    for act in acts:
        new = act(h)
        h = h if new is None else new
    return h
