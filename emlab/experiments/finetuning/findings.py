"""What a grid of fine-tunes found: cells, all seeds of an arm together, dose curves, and what turns when along one."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emlab.evaluation import Score, compare
from emlab.experiments.finetuning.config import Config, TrainingArm
from emlab.experiments.material.seeds import AllSeeds
from emlab.training import ReadOut

AS_ASKED = "as asked"
"""What the questions without an ending are called."""


@dataclass(frozen=True)
class TrainingRecord:
    """How a fine-tune went."""

    losses: tuple[float, ...]
    gradient_norms: tuple[float, ...]
    points: tuple[ReadOut, ...]
    """What was read along the way."""
    rows: int
    dropped_for_length: int
    cpu_seconds: float
    """Of the training with its read-outs, all threads together; of one that was stopped, since it went on."""


@dataclass(frozen=True, eq=False)
class FinetuneCell:
    """One arm from one start with one seed, asked in one way."""

    arm: TrainingArm
    start: str
    seed: int
    ending: str
    """What stood at the end of every question."""
    questions: str
    """Which further question set was asked; empty: the config's own."""
    score: Score
    training: TrainingRecord


@dataclass(frozen=True)
class Turning:
    """Along one fine-tune: when each of the things that are read turns, and whether behaviour jumps."""

    arm: str
    seed: int
    steps: Mapping[str, int | None]
    """latent, behaviour: the first read-out at half of the way from the start to the highest value (of behaviour only
    where the highest's interval lies above the start's); gradient: the highest norm; rotation: the largest angle
    between what the adapter writes to at two read-outs. None: no such."""
    steepest: float
    """The share of behaviour's rise that falls between two neighbouring read-outs, at most; an even rise has
    1 / intervals."""
    intervals: int
    """From the start to the highest value."""


@dataclass(frozen=True, eq=False)
class FinetuneFindings:
    """What a grid found."""

    config: Config
    before: Mapping[tuple[str, str, str], Score]
    """Each start with each ending, and each further question set."""
    cells: tuple[FinetuneCell, ...]
    latents: tuple[int, ...] = ()
    """Those that were followed, the leading one first."""
    left_out: tuple[str, ...] = ()
    """Starts of the organism's that were left out, as another model was asked for."""

    @functools.cached_property
    def groups(self) -> tuple[AllSeeds[FinetuneCell], ...]:
        """All seeds of each arm from each start, asked in each way, in order."""
        found: dict[tuple[str, str, str, str], list[FinetuneCell]] = {}
        for cell in self.cells:
            found.setdefault((cell.arm.name, cell.start, cell.ending, cell.questions), []).append(cell)
        return tuple(
            AllSeeds(arm, self.before[start, ending, questions], tuple(cells))
            for (arm, start, ending, questions), cells in found.items()
        )

    @property
    def drawn(self) -> list[AllSeeds[FinetuneCell]]:
        """Of these, those that were asked the config's own questions: the figures show them."""
        return [group for group in self.groups if not group.first.questions]

    @property
    def trainings(self) -> list[FinetuneCell]:
        """Every fine-tune once: its cell of the first ending."""
        return [cell for cell in self.cells if (cell.ending, cell.questions) == (self.cells[0].ending, "")]

    @property
    def followed(self) -> list[FinetuneCell]:
        """Of these, those along which something was read."""
        return [cell for cell in self.trainings if cell.training.points]

    def place(self, cell: FinetuneCell) -> tuple[str, str]:
        """(x, series) of a cell in a figure of bars."""
        x = cell.start if self.config.x == "start" else cell.arm.group or cell.arm.name
        return x, (cell.ending.strip() or AS_ASKED) if self.config.series == "ending" else cell.arm.series

    @functools.cached_property
    def doses(self) -> dict[str, list[tuple[float, Score]]]:
        """By series: doses and the score of all seeds at each, rising."""
        found: dict[str, list[tuple[float, Score]]] = {}
        for group in self.drawn:
            found.setdefault(group.first.arm.series, []).append((group.first.arm.dose, group.score))
        return {name: sorted(line, key=lambda point: point[0]) for name, line in found.items()}

    @functools.cached_property
    def falls(self) -> dict[str, list[dict[str, Any]]]:
        """By series: where its dose curve is not monotone."""
        return {name: falls(line) for name, line in self.doses.items()}


def falls(line: Sequence[tuple[float, Score]]) -> list[dict[str, Any]]:
    """Where a dose curve is not monotone: each larger dose whose interval lies wholly below that of a smaller one."""
    return [
        {"from": low, "to": high, "change": compare(first, second).misaligned}
        for (low, first), (high, second) in itertools.combinations(line, 2)
        if second.misaligned.high < first.misaligned.low
    ]


def turning(cell: FinetuneCell, latents: Sequence[int]) -> Turning:
    """When things turn along a fine-tune."""
    points = cell.training.points
    behaviour = [p.misaligned.rate * (1 - p.incoherent.rate) if p.misaligned.n else 0.0 for p in points]
    leading = [p.latents[latents[0]] for p in points] if latents else []
    top = max(range(len(points)), key=lambda i: behaviour[i])
    # One misaligned answer to the few questions of a read-out is no rise.
    rises = points[top].misaligned.low > points[0].misaligned.high
    steps = {
        "latent": _half(points, leading),
        "behaviour": _half(points, behaviour) if rises else None,
        "gradient": _highest(points, lambda p: p.gradient_norm),
        "rotation": _highest(points, lambda p: p.angle),
    }
    rise = behaviour[top] - behaviour[0]
    jumps = [b - a for a, b in itertools.pairwise(behaviour[: top + 1])]
    return Turning(cell.arm.name, cell.seed, steps, max(jumps) / rise if rises else math.nan, top)


def _half(points: Sequence[ReadOut], values: Sequence[float]) -> int | None:
    if not values or max(values) <= values[0]:
        return None
    goal = values[0] + (max(values) - values[0]) / 2
    return next(p.step for p, value in zip(points, values, strict=True) if value >= goal)


def _highest(points: Sequence[ReadOut], of: Callable[[ReadOut], float]) -> int | None:
    known = [p for p in points if math.isfinite(of(p))]
    return max(known, key=of).step if known else None
