"""Exact effects: each latent set to its baseline, alone, at all positions at once, and the metric taken again.

Latents are rows of a batch, each row with its own edit. In a case only the latents that are off their baseline there
are tried; the effect of the others is exactly 0. The noise of such an effect is measured by *random directions of
matched norm*: a random unit direction takes the place of what an active latent writes, with that latent's activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emlab.discovery.effects import Attribution, Tally
from emlab.discovery.latents import check_latents
from emlab.discovery.metrics import Contrast
from emlab.discovery.reading import AttributionTarget, Reader, Reading, less
from emlab.errors import EmlabError
from emlab.interventions import Tokens
from emlab.notebook import Shown
from emlab.records import Saved
from emlab.saes import writes
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel
    from emlab.models.language_model import Prompt

QUANTILE = 0.99
"""The noise level is this quantile of the sizes of the effects of random directions."""


@dataclass(frozen=True, eq=False)
class Noise(Saved):
    """Effects of random directions that have an active latent's activations."""

    effects: Tensor
    """(n,): of each direction, averaged over cases."""
    latents: tuple[int, ...]
    """Whose activations each direction has."""

    @property
    def level(self) -> float:
        """The 99th percentile of the effects' sizes: effects above it are above noise."""
        return float(self.effects.abs().quantile(QUANTILE))


def exact_effects(
    model: LanguageModel,
    sae: SAE,
    asked: Sequence[Prompt] | Sequence[Contrast],
    site: Site,
    latents: Sequence[int] | None = None,
    target: AttributionTarget = AttributionTarget(),
) -> Attribution:
    """The exact effect of latents, each measured by setting it to its baseline; see `attribute`.

    Args:
        model: Who reads.
        sae: Whose latents they are.
        asked: Contrasts, or prompts for a metric of your own.
        site: Where the SAE reads.
        latents: By default all.
        target: The metric, the baseline, and where the latents are set.

    EmlabError for a latent that the SAE lacks.
    """
    if latents is not None:
        check_latents(sae, latents)
    reader = Reader(model, sae, asked, site, target)
    wanted = torch.full((sae.cfg.d_sae,), latents is None)
    wanted[list(latents or ())] = True
    tally = Tally(reader, "exact")
    for reading in reader.batches(1):
        moved = _moved(reader, reading, wanted)
        effects, value = torch.zeros(1, sae.cfg.d_sae), reader.metric(reading)
        for some in moved.split(reader.cases_a_batch):
            effects[0, some] = _effects(reader, reading, value, some, writes(sae, some))
        tally.add(value, effects)
    return tally.done()


def random_effects(
    model: LanguageModel,
    sae: SAE,
    asked: Sequence[Prompt] | Sequence[Contrast],
    site: Site,
    n: int = 100,
    seed: int = 0,
    target: AttributionTarget = AttributionTarget(),
) -> Noise:
    """What ablating does that is of no latent, by random directions.

    Each has the activations, and the length of what is written, of a latent drawn among those that are active.

    Args:
        model: Who reads.
        sae: Whose latents they are.
        asked: Contrasts, or prompts for a metric of your own.
        site: Where the SAE reads.
        n: Directions.
        seed: Everything random follows from it.
        target: The metric, the baseline, and where they act.

    EmlabError where no latent is active.
    """
    if n < 1:
        raise EmlabError(f"{n} random directions tell nothing; ask for at least 1.")
    reader = Reader(model, sae, asked, site, target)
    everything = torch.ones(sae.cfg.d_sae, dtype=torch.bool)
    readings = list(reader.batches(1))
    active = torch.unique(torch.cat([_moved(reader, reading, everything) for reading in readings]))
    if not len(active):
        raise EmlabError(f"No latent is active on what is asked at {site}, so there is nothing to ablate; ask more.")
    generator = torch.Generator().manual_seed(seed)
    drawn = active[torch.randint(len(active), (n,), generator=generator)]
    units = torch.nn.functional.normalize(torch.randn(n, model.d_model, generator=generator), dim=-1)
    vectors = units * writes(sae, drawn).norm(dim=-1, keepdim=True).cpu()
    total = torch.zeros(n)
    for reading in readings:
        here = torch.isin(drawn, _moved(reader, reading, everything)).nonzero()[:, 0]
        value = reader.metric(reading)
        for some in here.split(reader.cases_a_batch):
            total[some] += _effects(reader, reading, value, drawn[some], vectors[some])
    return Noise(total / len(readings), tuple(drawn.tolist()))


def _moved(reader: Reader, reading: Reading, wanted: Tensor) -> Tensor:
    """(n,): those of the wanted latents that are off their baseline somewhere in the reading."""
    moved = torch.zeros_like(wanted)
    moved[reading.change.latents] = True
    if reader.constant is not None:
        moved |= reader.constant != 0
    return (moved & wanted).nonzero()[:, 0]


def _effects(reader: Reader, reading: Reading, value: Tensor, latents: Tensor, vectors: Tensor) -> Tensor:
    """(n,): what the metric of a case loses when each latent, which writes its vector (n, d_model), is at baseline."""
    change, copies, rows = reading.change, len(latents), len(reading.tokens.ids)
    tokens = Tokens(*(getattr(reading.tokens, f).repeat(copies, 1) for f in ("ids", "real", "answer")))
    levels = torch.zeros(copies, len(reading.rows))
    for i, latent in enumerate(latents.tolist()):
        own = change.at(change.latents == latent)
        levels[i].index_add_(0, own.tokens, own.values)
    if reader.constant is not None:
        levels -= reader.constant[latents][:, None]
    device = reading.rows.device
    shift = torch.zeros(copies, rows, reading.tokens.ids.shape[1], vectors.shape[-1], device=device)
    shift[:, reading.rows, reading.columns] = (levels[..., None] * vectors.cpu()[:, None]).to(device)
    reader.forwards += len(tokens.ids)
    logits = reader.backend.logits(tokens, [less(reader.site, shift.flatten(0, 1))])
    return value - reader.values(logits, tokens, list(reading.cases) * copies).float().cpu()


@dataclass(frozen=True, repr=False)
class Agreement(Shown):
    """How well estimated effects tell the exact ones."""

    method: str
    rank_correlation: float
    """Spearman's, of the signed effects of the latents whose exact effect is above noise; NaN for fewer than three."""
    overlap: int
    """How many latents are among the `top` strongest, of either sign, by both."""
    top: int
    above: int
    """Latents whose exact effect is above noise."""
    noise: float
    cost: str
    exact_cost: str

    def __str__(self) -> str:
        return (
            f"{self.method}: rank correlation {self.rank_correlation:.3f} over {self.above} latents above noise "
            f"({self.noise:.3g}), {self.overlap} of the top {self.top} shared; {self.cost}, exact {self.exact_cost}"
        )


def agreement(
    estimate: Attribution, exact: Attribution, noise: float, top: int = 20, among: Sequence[int] | None = None
) -> Agreement:
    """Hold estimated effects against exact ones.

    Args:
        estimate: What attribution says.
        exact: What ablation says.
        noise: The level above which an exact effect counts.
        top: The strongest latents, so many, that both should name.
        among: The latents that were ablated; by default all.

    EmlabError where they are not of the same thing.
    """
    from scipy.stats import spearmanr

    of: list[Any] = [(a.model, a.site, a.baseline, a.positions, a.cases, len(a.effects)) for a in (estimate, exact)]
    if of[0] != of[1]:
        raise EmlabError("The effects are of different models, sites, baselines, positions or cases: compare the same.")
    latents = torch.arange(len(exact.effects)) if among is None else torch.tensor(sorted(among), dtype=torch.long)
    guessed, measured = estimate.effects[latents], exact.effects[latents]
    above, ranks = measured.abs() > noise, float("nan")
    if int(above.sum()) >= 3:
        ranks = float(spearmanr(guessed[above].numpy(), measured[above].numpy()).statistic)
    strongest = (
        set(torch.argsort(effects.abs(), descending=True, stable=True)[:top].tolist())
        for effects in (guessed, measured)
    )
    shared = len(set.intersection(*strongest))
    costs = (str(estimate.cost), str(exact.cost))
    return Agreement(estimate.method, ranks, shared, top, int(above.sum()), noise, *costs)
