"""What an SAE's latents hold while a model reads cases, and how far each is from its baseline.

The activation of a site is the SAE's latents times what each writes, plus the decoder's bias, plus the SAE's error.
Only latents are ever changed, so bias and error stay as they are (Marks et al. 2024, arXiv:2403.19647).

A latent's *baseline* is what it is compared with: 0; its mean over all positions read; or its value in another model
that reads the same tokens, which makes of attribution a comparison of the two models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.discovery.latents import BUDGET, ActiveLatents, active_latents, check_width
from emlab.discovery.metrics import Cases, CaseValues, Contrast, Metric, log_probability_difference
from emlab.discovery.selection import described
from emlab.errors import EmlabError
from emlab.interventions import Positions, Replace, Tokens, where
from emlab.models import wrap
from emlab.models.backends.protocol import Backend
from emlab.models.wrapping import as_language_model
from emlab.saes import check_site, writes
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel
    from emlab.models.language_model import Prompt


LOGITS = 2**27
"""Bytes that the logits of a batch may take in float32. A gradient holds several times as many."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A batch of cases as read at the site."""

    cases: tuple[int, ...]
    tokens: Tokens
    rows: Tensor
    """(n,) int64: the row in the batch of each selected token."""
    columns: Tensor
    """(n,) int64: its column."""
    change: ActiveLatents
    """Each latent less its baseline, by selected token; a constant baseline is not in it. Where the baseline is another
    model, a latent that is active in both has two entries."""


@dataclass(frozen=True, eq=False)
class AttributionTarget:
    """What effects are effects on, against what, and how the cases are read."""

    metric: Metric | None = None
    """By default the log-probability of the misaligned minus the aligned answer; prompts need one."""
    baseline: str | Tensor | LanguageModel = "zero"
    """zero, mean (over the positions read), values (d_sae,), or another model, whose latents on the same tokens are
    what each is then compared with."""
    positions: Positions = "all"
    """Which tokens are read, and where latents are set."""
    batch_size: int = 32
    """Rows that go through the model at a time, at most: fewer where their logits would take more than `LOGITS`."""
    budget: int = BUDGET
    """Bytes that bound the dense latents of a chunk."""


class Reader:
    """Reads cases, batch by batch, and turns changes of latents into changes of the site's activation."""

    def __init__(
        self,
        model: LanguageModel,
        sae: SAE,
        asked: Sequence[Prompt] | Sequence[Contrast],
        site: Site,
        target: AttributionTarget = AttributionTarget(),
    ) -> None:
        model = as_language_model(model)
        check_site(sae, site)
        check_width(sae, model.d_model, f"{model.name} at {site}")
        self.cases = Cases.of(model, asked)
        if target.metric is None and self.cases.per_case == 1:
            raise EmlabError("Prompts need a metric of their logits; give metric=, or contrasts of two answers.")
        self.values = CaseValues(target.metric or log_probability_difference, self.cases)
        self.model, self.sae, self.site, self.positions = model, sae, site, target.positions
        self.backend: Backend = wrap(model)
        self.budget = target.budget
        self.cases_a_batch = max(1, target.batch_size // self.cases.per_case)
        self.forwards = self.backwards = 0
        """Rows that went through the model forward, and backward."""
        self.other: Backend | None = None
        self.constant: Tensor | None = None
        """(d_sae,): the baseline where it is the same on every token and not 0."""
        self.baseline = self._set(target.baseline, asked)

    def batches(self, cases_a_batch: int | None = None) -> Iterator[Reading]:
        """All cases, those of like length together; fewer at a time where their logits would take much memory."""
        step, a_case = cases_a_batch or self.cases_a_batch, self.cases.per_case
        order = sorted(range(len(self.cases)), key=lambda i: len(self.cases.rows[i * a_case]))
        a_token = 4 * a_case * self.model.model.config.get_text_config().vocab_size
        while order:
            longest = max(len(row) for case in order[:step] for row in self.cases.rows[case * a_case :][:a_case])
            now = min(step, max(1, LOGITS // (a_token * longest)))
            yield self.read(order[:now])
            order = order[now:]

    def read(self, cases: Sequence[int]) -> Reading:
        """Some cases at the site. EmlabError where one of them has no token at the positions."""
        tokens = self.cases.batch(self.model, cases)
        ends = self.model.sentence_ends if isinstance(self.positions, str) and self.positions == "sentence" else None
        rows, columns = where(self.positions, tokens, ends).nonzero(as_tuple=True)
        for i, case in enumerate(cases):
            if not bool((rows // self.cases.per_case == i).any()):
                raise EmlabError(
                    f"No token of {self.cases.names[case]!r} is at the positions {described(self.positions)!r}; "
                    "choose positions that every case has."
                )
        change = self._latents(self.backend, tokens, rows, columns)
        if self.other is not None:
            change = ActiveLatents.cat([change, -self._latents(self.other, tokens, rows, columns)])
        return Reading(tuple(cases), tokens, rows, columns, change)

    def _latents(self, backend: Backend, tokens: Tokens, rows: Tensor, columns: Tensor) -> ActiveLatents:
        self.forwards += len(tokens.ids)
        return active_latents(self.sae, backend.capture(tokens, self.site)[self.site][rows, columns], self.budget)

    def shift(self, reading: Reading, latents: Tensor | None = None) -> Tensor:
        """(rows, position, d_model): what taking the latents to their baseline takes away from the activation.

        With `latents`, bool (d_sae,), of these alone.
        """
        change = reading.change if latents is None else reading.change.at(latents[reading.change.latents])
        pushed = torch.zeros(len(reading.rows), self.model.d_model, device=reading.rows.device)
        for index in torch.arange(len(change)).split(self.chunk):
            part = change.at(index)
            pushed.index_add_(0, part.tokens.to(pushed.device), self.written(part).to(pushed.device))
        if self.constant is not None:
            pushed -= self._constant_push(latents).to(pushed)
        return self.spread(reading, pushed)

    def spread(self, reading: Reading, at_tokens: Tensor) -> Tensor:
        """(rows, position, width): vectors (n, width) of the selected tokens at their places, 0 elsewhere."""
        whole = torch.zeros(*reading.tokens.ids.shape, at_tokens.shape[-1], device=at_tokens.device)
        whole[reading.rows, reading.columns] = at_tokens
        return whole

    @property
    def chunk(self) -> int:
        """How many vectors fit the budget."""
        return max(1, self.budget // (4 * self.model.d_model))

    def written(self, change: ActiveLatents) -> Tensor:
        """(n, d_model): what each entry adds to the activation."""
        vectors = writes(self.sae, change.latents)
        return vectors * change.values[:, None].to(vectors.device)

    def metric(self, reading: Reading, shift: Tensor | None = None) -> Tensor:
        """(cases,) on the CPU: the metric, with `shift` taken away from the site's activation."""
        self.forwards += len(reading.tokens.ids)
        edits = [] if shift is None else [less(self.site, shift)]
        return self.values(self.backend.logits(reading.tokens, edits), reading.tokens, reading.cases).float().cpu()

    def _constant_push(self, latents: Tensor | None) -> Tensor:
        assert self.constant is not None
        chosen = self.constant if latents is None else self.constant * latents.to(self.constant)
        pushed = torch.zeros(self.model.d_model)
        for index in chosen.nonzero()[:, 0].split(self.chunk):
            pushed += chosen[index] @ writes(self.sae, index).cpu()
        return pushed

    def _set(self, baseline: str | Tensor | LanguageModel, asked: Sequence[Prompt] | Sequence[Contrast]) -> str:
        """Take in the baseline; returns what to call it."""
        if isinstance(baseline, Tensor):
            if baseline.shape != (self.sae.cfg.d_sae,):
                raise EmlabError(
                    f"The baseline has shape {tuple(baseline.shape)} for {self.sae.cfg.d_sae} latents; give one value "
                    "for each."
                )
            self.constant = baseline.float().cpu()
            return "given values"
        if baseline == "zero":
            return baseline
        if baseline == "mean":
            total, tokens = torch.zeros(self.sae.cfg.d_sae, dtype=torch.float64), 0
            for reading in self.batches():
                total.index_add_(0, reading.change.latents, reading.change.values.double())
                tokens += len(reading.rows)
            self.constant = (total / tokens).float()
            return baseline
        if isinstance(baseline, str):
            raise EmlabError(f"There is no baseline {baseline!r}; choose zero, mean, values (d_sae,) or another model.")
        if Cases.of(baseline, asked).rows != self.cases.rows:
            raise EmlabError(
                f"{self.model.name} and {baseline.name} make different tokens of the same prompts: compare models that "
                "share a tokenizer and a chat template."
            )
        check_width(self.sae, baseline.d_model, f"{baseline.name} at {self.site}")
        self.other = wrap(baseline)
        return baseline.name


def less(site: Site, shift: Tensor) -> Replace:
    """The edit that takes `shift` (rows, position, d_model) away."""
    return Replace(site, lambda h: h - shift.to(h), "all")
