"""Effects of latents on a metric: what attribution and ablation give, latent by latent and position by position."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from emlab import artifacts, records
from emlab.discovery.selection import described
from emlab.discovery.table_cells import or_dash
from emlab.discovery.vectors import LISTED, read_vectors, write_vectors
from emlab.notebook import Shown
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.discovery.reading import Reader, Reading

VECTORS = ("effects", "standard_error")

ROW_NAMES = {1: ("prompt",), 2: ("misaligned", "aligned")}
"""What the rows of a case are, by how many there are."""


@dataclass(frozen=True)
class Place:
    """The effect of a latent at one position."""

    case: int
    """Which of what was asked, from 0."""
    row: str
    """Where the token stands: misaligned or aligned (the prompt with that answer), or prompt where there is none."""
    position: int
    """The token's index in its row, from 0."""
    token: str
    latent: int
    change: float
    """The latent's activation less its baseline."""
    effect: float


@dataclass(frozen=True)
class AttributionCost:
    """What it took."""

    forwards: int
    """Rows (texts) that went through the model."""
    backwards: int
    """Rows that gradients were taken of."""
    seconds: float

    def __str__(self) -> str:
        return f"{self.forwards} rows forward, {self.backwards} backward, {self.seconds:.1f} s"


MEASURES = {"log_probability_difference": "the log-probability of the misaligned minus the aligned answer, in nats"}
"""What metrics by these names tell."""


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(Shown):
    """The effect of every latent on a metric: how much less it would be, or is, were the latent at its baseline."""

    model: str
    site: Site
    method: str
    """gradient, integrated, patching, or exact."""
    baseline: str
    """zero, mean, given values, or the name of the other model."""
    positions: str
    cases: int
    metric: float
    """Its mean over the cases, nothing edited."""
    effects: Tensor
    """(d_sae,) float32, summed over positions and averaged over cases, in units of the metric."""
    standard_error: Tensor
    """(d_sae,) over cases; NaN where there is one."""
    places: tuple[Place, ...]
    """The strongest effects at a single position, strongest first; none of an exact ablation."""
    cost: AttributionCost
    measure: str = "log_probability_difference"
    """The metric's name; by default log-probability of the misaligned minus the aligned answer, in nats."""

    @property
    def order(self) -> Tensor:
        """(d_sae,) int64: the latents from the strongest effect, of either sign, to the weakest; ties by index."""
        return torch.argsort(self.effects.abs(), descending=True, stable=True)

    def top(self, n: int = 20) -> list[int]:
        """The `n` latents with the strongest effects, of either sign."""
        return [int(latent) for latent in self.order[:n]]

    def rows(self) -> list[dict[str, Any]]:
        """Every latent, the one with the strongest effect first, as plain values."""
        return [
            {
                "rank": rank,
                "latent": j,
                "effect": float(self.effects[j]),
                "standard_error": float(self.standard_error[j]),
            }
            for rank, j in enumerate(self.top(len(self.effects)), 1)
        ]

    def save(self, path: str | Path) -> Path:
        """Write all as JSON (the vectors of more than 65,536 latents beside it, as safetensors), and beside it a table,
        ending .csv, of the latents in order of their effect: all, or the first 1,000 of so many."""
        path = artifacts.place(path)
        shown = self.top(1000 if len(self.effects) > LISTED else len(self.effects))
        lines = ["rank,latent,effect,standard_error"]
        for rank, j in enumerate(shown, 1):
            lines.append(f"{rank},{j},{float(self.effects[j]):.6g},{float(self.standard_error[j]):.6g}")
        artifacts.write_text(path.with_suffix(".csv"), "\n".join(lines) + "\n")
        about = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in VECTORS}
        vectors = {name: getattr(self, name) for name in VECTORS}
        return write_vectors(path, {**about, "site": str(self.site)}, vectors)

    @classmethod
    def load(cls, path: str | Path) -> Attribution:
        """Read what `save` wrote."""
        raw, vectors = read_vectors(path, VECTORS, "attribution")
        return cast(Attribution, records.restored({**raw, **vectors}, cls, str(path)))

    def __str__(self) -> str:
        lines = [
            f"{self.method} effects of latents at {self.site} of {self.model} against {self.baseline}, "
            f"{self.cases} cases ({self.cost})",
            f"effects on {MEASURES.get(self.measure, self.measure)}, which is {self.metric:+.3f} on average",
            "rank  latent    effect        se",
        ]
        for rank, j in enumerate(self.top(10), 1):
            error = or_dash(float(self.standard_error[j]), "8.3f")
            lines.append(f"{rank:4d}  {j:6d}  {float(self.effects[j]):+8.3f}  {error}")
        if self.places:
            lines.append("strongest at one position:")
        for p in self.places[:5]:
            lines.append(
                f"  latent {p.latent} at {p.token!r} ({p.row}, {p.position}) of case {p.case}: {p.effect:+.3f}"
            )
        return "\n".join(lines)


class Tally:
    """Gathers effects case by case: running sums for each latent, and the strongest places."""

    def __init__(self, reader: Reader, method: str, keep: int = 0) -> None:
        self._reader, self._method, self._keep = reader, method, keep
        self._sum, self._square = torch.zeros(2, reader.sae.cfg.d_sae, dtype=torch.float64)
        self._cases, self._metric = 0, 0.0
        self._places: list[Place] = []
        self._begun = time.perf_counter()

    def add(self, values: Tensor, effects: Tensor) -> None:
        """The metric (cases,) of some cases, nothing edited, and the effects (cases, d_sae)."""
        self._metric += float(values.double().sum())
        self._cases += len(values)
        for row in effects.double():
            self._sum += row
            self._square += row.square()

    def add_places(self, reading: Reading, effects: Tensor) -> None:
        """The effects (n,) of the entries of `reading.change`, of which the strongest are kept."""
        if not len(effects) or not self._keep:
            return
        change, d_sae = reading.change, self._reader.sae.cfg.d_sae
        # With another model as baseline a latent may have two entries at a token: they are one place.
        keys, index = torch.unique(change.tokens * d_sae + change.latents, return_inverse=True)
        summed = torch.zeros(len(keys)).index_add_(0, index, effects)
        values = torch.zeros(len(keys)).index_add_(0, index, change.values)
        found = [
            self._place(reading, int(keys[i]) // d_sae, int(keys[i]) % d_sae, float(values[i]), float(summed[i]))
            for i in summed.abs().topk(min(self._keep, len(keys))).indices.tolist()
        ]
        self._places = sorted([*self._places, *found], key=lambda p: -abs(p.effect))[: self._keep]

    def done(self) -> Attribution:
        """The effects gathered."""
        reader, n = self._reader, self._cases
        mean = self._sum / n
        spread = (self._square - n * mean.square()).clamp_min(0)
        error = (spread / (n - 1)).sqrt() / n**0.5 if n > 1 else torch.full_like(mean, math.nan)
        return Attribution(
            reader.model.name,
            reader.site,
            self._method,
            reader.baseline,
            described(reader.positions),
            n,
            self._metric / n,
            mean.float(),
            error.float(),
            tuple(self._places),
            AttributionCost(reader.forwards, reader.backwards, time.perf_counter() - self._begun),
            reader.values.name,
        )

    def _place(self, reading: Reading, token: int, latent: int, change: float, effect: float) -> Place:
        reader, row, column = self._reader, int(reading.rows[token]), int(reading.columns[token])
        per_case = reader.cases.per_case
        return Place(
            reading.cases[row // per_case],
            ROW_NAMES[per_case][row % per_case],
            int(reading.tokens.position_ids[row, column]),
            reader.model.tokenizer.decode([int(reading.tokens.ids[row, column])]),
            latent,
            change,
            effect,
        )


def summary(attribution: Attribution) -> dict[str, Any]:
    """The figures as plain values, without the vectors."""
    left = (*VECTORS, "places")
    about = {f.name: getattr(attribution, f.name) for f in fields(attribution) if f.name not in left}
    top = [
        {"latent": j, "effect": float(attribution.effects[j]), "standard_error": float(attribution.standard_error[j])}
        for j in attribution.top(20)
    ]
    return {**about, "site": str(attribution.site), "top": top, "places": attribution.places[:20]}
