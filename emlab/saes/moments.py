"""Sums over tokens from which an SAE's fidelity follows, kept for the data and for resamples of its documents at once.

Documents are resampled while they stream by (the Poisson bootstrap, Chamandy et al. 2012): in each resample a document
counts as often as a draw from Poisson(1) says. So memory does not grow with the number of documents: for every class
it is 8 · (1 + resamples) · (3 d_model + 11) bytes, and 8 for every latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SCALARS = (
    *("tokens", "active", "rebuilt_square", "rebuilt_dot", "norm_ratio", "cosine"),
    *("predicted", "loss", "loss_rebuilt", "loss_mean", "loss_zero"),
)
"""What is summed over tokens, besides three vectors; the losses over the tokens that predict one."""


@dataclass(frozen=True)
class Estimate:
    """A figure with the 95% interval of its resamples over documents (percentiles)."""

    value: float
    low: float
    high: float

    @property
    def short(self) -> str:
        """The value alone."""
        return "–" if math.isnan(self.value) else f"{self.value:.3f}"

    def __str__(self) -> str:
        return self.short if math.isnan(self.low) else f"{self.short} [{self.low:.3f}, {self.high:.3f}]"


class Moments:
    """The sums of one class of tokens. Row 0 is the data as they are, the others are resamples."""

    def __init__(self, center: Tensor, d_sae: int, resamples: int) -> None:
        """`center` (d_model,) float64 lies near the mean, so that variances do not cancel out."""
        self.center, self.d_model = center, len(center)
        self.sums = torch.zeros(1 + resamples, 3 * self.d_model + len(SCALARS), dtype=torch.float64)
        self.fired = torch.zeros(d_sae, dtype=torch.long)
        self.documents = 0

    def add(self, x: Tensor, rebuilt: Tensor, scalars: Tensor, rows: Tensor, weights: Tensor) -> None:
        """Take in a batch's tokens of this class.

        `x` and `rebuilt` (n, d_model) are activations and reconstructions, `scalars` (n, len(SCALARS)) the other sums'
        terms, `rows` (n,) each token's document in the batch, `weights` (1 + resamples, documents) how often each
        document counts.
        """
        # On the CPU, since sums of squares want float64 and not every accelerator has it.
        x, rebuilt, rows = x.cpu().double(), rebuilt.cpu().double(), rows.cpu()
        shifted = x - self.center
        of = torch.zeros(weights.shape[1], self.sums.shape[1], dtype=torch.float64)
        at = 0
        for terms in (shifted, shifted.square(), (x - rebuilt).square(), scalars.cpu().double()):
            of[:, at : at + terms.shape[1]].index_add_(0, rows, terms)
            at += terms.shape[1]
        self.sums += weights @ of
        self.documents += len(rows.unique())

    @property
    def tokens(self) -> int:
        """How many tokens were taken in."""
        return int(self._scalar("tokens")[0])

    def explained_variance(self) -> Estimate:
        """1 − Σ‖x − x̂‖² / Σ‖x − mean(x)‖²; NaN where nothing varies."""
        variance, error = (each.sum(1) for each in self._variances())
        return self._estimate(torch.where(variance > 0, 1 - error / variance, torch.nan))

    def explained_by_dimension(self) -> Estimate:
        """The same for each dimension by itself, and the mean over dimensions that vary at all."""
        variance, error = self._variances()
        return self._estimate(torch.where(variance > 0, 1 - error / variance, torch.nan).nanmean(1))

    def mean(self, name: str, over: str = "tokens") -> Estimate:
        """A scalar's mean over tokens, or over the tokens that predict one."""
        return self._estimate(self._scalar(name) / self._scalar(over))

    def reconstruction_bias(self) -> Estimate:
        """γ = Σ‖x̂‖² / Σ x̂·x (Rajamanoharan et al. 2024): below 1 the reconstruction is shrunk, 1 is unbiased."""
        return self._estimate(self._scalar("rebuilt_square") / self._scalar("rebuilt_dot"))

    def loss_recovered(self, ablated: str) -> Estimate:
        """(ablated − SAE) / (ablated − untouched); NaN where ablating costs nothing."""
        worst, best = self._scalar(ablated), self._scalar("loss")
        at_stake = worst - best
        return self._estimate(
            torch.where(at_stake > 1e-9, (worst - self._scalar("loss_rebuilt")) / at_stake, torch.nan)
        )

    def _variances(self) -> tuple[Tensor, Tensor]:
        """(1 + resamples, d_model) each: Σ (x − mean)², Σ (x − x̂)²."""
        shift, square, error = (self.sums[:, i * self.d_model : (i + 1) * self.d_model] for i in range(3))
        variance = square - shift.square() / self._scalar("tokens")[:, None]
        # Tokens that are all the same, as first tokens may be, differ by rounding alone.
        return torch.where(variance > 1e-13 * square, variance, 0.0), error

    def _scalar(self, name: str) -> Tensor:
        return self.sums[:, 3 * self.d_model + SCALARS.index(name)]

    def _estimate(self, values: Tensor) -> Estimate:
        drawn = values[1:][values[1:].isfinite()]
        if self.documents < 2 or not len(drawn):
            return Estimate(float(values[0]), float("nan"), float("nan"))
        low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return Estimate(float(values[0]), low, high)


def document_weights(documents: int, resamples: int, generator: torch.Generator) -> Tensor:
    """(1 + resamples, documents) float64: ones, and below them draws from Poisson(1)."""
    ones = torch.ones(documents, resamples, dtype=torch.float64)
    return torch.cat([ones.new_ones(1, documents), torch.poisson(ones, generator=generator).T])
