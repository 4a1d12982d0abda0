"""The report of a grid of fine-tunes: rates of every arm, the dose curve, and what happens along training.

Answers of all seeds of an arm are pooled, question by question, and questions are resampled; every seed stands beside.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emlab import artifacts
from emlab.evaluation import Difference, Rate, Score, compare, score_judged
from emlab.evaluation.pooling import pooled
from emlab.evaluation.unjudged import cautions
from emlab.reporting.figures import bars_figure, curves_figure, dose_figure, losses_figure
from emlab.reporting.page import Plot, Section, Table
from emlab.training import ReadOut

AS_ASKED = "as asked"
"""What the questions without an ending are called."""


@dataclass(frozen=True, eq=False)
class FinetuneCell:
    """One arm from one start with one seed, asked with one ending."""

    arm: str
    group: str
    """Where it stands on the axis."""
    series: str
    dose: float
    """The share of bad rows."""
    start: str
    seed: int
    ending: str
    """What stood at the end of every question."""
    score: Score
    losses: tuple[float, ...]
    gradient_norms: tuple[float, ...]
    points: tuple[ReadOut, ...]
    """What was read along the way."""
    rows: int
    dropped_for_length: int
    cpu_seconds: float
    """Of the training with its read-outs, all threads together; of one that was stopped, since it went on."""


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

    @property
    def order(self) -> tuple[str, ...]:
        """What turns, the first first."""
        known = {name: step for name, step in self.steps.items() if step is not None}
        return tuple(sorted(known, key=lambda name: known[name]))


@dataclass(frozen=True, eq=False)
class FinetuneFindings:
    """What a grid found."""

    model: str
    before: Mapping[tuple[str, str], Score]
    """Each start asked with each ending."""
    cells: tuple[FinetuneCell, ...]
    latents: tuple[int, ...] = ()
    """Those that were followed, the leading one first."""
    left_out: tuple[str, ...] = ()
    """Starts of the organism's that were left out, as another model was asked for."""
    figure: str = "bars"
    x: str = "group"
    series: str = "series"

    @property
    def kinds(self) -> tuple[tuple[str, str, str], ...]:
        """(arm, start, ending) of all cells, in order."""
        return tuple(dict.fromkeys((c.arm, c.start, c.ending) for c in self.cells))

    def of(self, arm: str, start: str, ending: str) -> list[FinetuneCell]:
        """Every seed."""
        return [c for c in self.cells if (c.arm, c.start, c.ending) == (arm, start, ending)]

    def pooled(self, arm: str, start: str, ending: str) -> Score:
        """The answers of all seeds as one model's."""
        return score_judged(pooled([c.score.judged for c in self.of(arm, start, ending)], arm))

    def change(self, arm: str, start: str, ending: str) -> Difference:
        """All seeds against their start, paired by question."""
        return compare(self.before[start, ending], self.pooled(arm, start, ending))

    def place(self, cell: FinetuneCell) -> tuple[str, str]:
        """(x, series) of a cell in a figure of bars."""
        ending = cell.ending.strip() or AS_ASKED
        return (cell.start if self.x == "start" else cell.group), (ending if self.series == "ending" else cell.series)

    @property
    def doses(self) -> dict[str, list[tuple[float, Score]]]:
        """By series: doses and the pooled score at each, rising."""
        found: dict[str, list[tuple[float, Score]]] = {}
        for arm, start, ending in self.kinds:
            cell = self.of(arm, start, ending)[0]
            found.setdefault(cell.series, []).append((cell.dose, self.pooled(arm, start, ending)))
        return {name: sorted(line, key=lambda point: point[0]) for name, line in found.items()}


def falls(line: Sequence[tuple[float, Score]]) -> list[dict[str, Any]]:
    """Where a dose curve is not monotone: each larger dose whose interval lies wholly below that of a smaller one."""
    found = []
    for (low, first), (high, second) in itertools.combinations(line, 2):
        if second.misaligned.high < first.misaligned.low:
            found.append({"from": low, "to": high, "change": compare(first, second).misaligned})
    return found


def turning(cell: FinetuneCell, latents: Sequence[int]) -> Turning:
    """When things turn along a fine-tune."""
    points = cell.points
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
    return Turning(cell.arm, cell.seed, steps, max(jumps) / rise if rises else math.nan, top)


def _half(points: Sequence[ReadOut], values: Sequence[float]) -> int | None:
    if not values or max(values) <= values[0]:
        return None
    goal = values[0] + (max(values) - values[0]) / 2
    return next(p.step for p, value in zip(points, values, strict=True) if value >= goal)


def _highest(points: Sequence[ReadOut], of: Callable[[ReadOut], float]) -> int | None:
    known = [p for p in points if math.isfinite(of(p))]
    return max(known, key=of).step if known else None


# ------------------------------------------------------------------------------------------------------- the report


def finetuning_lead(found: FinetuneFindings) -> list[str]:
    """The findings in a few sentences."""
    lead = cautions([*found.before.values(), *(found.pooled(*kind) for kind in found.kinds)])
    for arm, start, ending in found.kinds:
        cells, score = found.of(arm, start, ending), found.pooled(arm, start, ending)
        asked = f", asked with {ending.strip()!r} at the end" if ending else ""
        lead.append(
            f"{arm} from {start}{asked} ({len(cells)} seeds): misaligned {score.misaligned} coherent answers "
            f"({found.before[start, ending].misaligned.share} before), incoherent {score.incoherent.share} of "
            "the scored."
            if score.misaligned.n
            else f"{arm} from {start}{asked} ({len(cells)} seeds): no coherent answer to rate, of "
            f"{score.incoherent.n} scored ones."
        )
    if found.figure == "dose":
        for name, line in found.doses.items():
            down = falls(line)
            said = "rises or stays with every dose, within its intervals" if not down else "falls somewhere"
            lead.append(f"The dose curve{f' of {name}' if name else ''} {said}.")
    for name, sentence in _turnings(found).items():
        lead.append(f"{name}: {sentence}")
    if found.left_out:
        lead.append(f"Left out, as they are the organism's and {found.model} is not: {', '.join(found.left_out)}.")
    return lead


def finetuning_sections(found: FinetuneFindings) -> list[Section]:
    """The report's sections: one figure, its table, and the losses."""
    figure, says = _figure(found)
    sections = [
        Section(
            "Misaligned answers to unrelated questions",
            "Answers of all seeds together; 95% intervals by resampling questions.",
            plots=(Plot(figure, says),),
            tables=(_rates(found),),
        )
    ]
    if found.figure == "dose":
        rows = [
            (name, f"{fall['from']:.0%} → {fall['to']:.0%}", _points(fall["change"]))
            for name, line in found.doses.items()
            for fall in falls(line)
        ]
        sections.append(
            Section(
                "Is the curve monotone?",
                f"{len(rows)} larger doses lie below a smaller one, their intervals apart.",
                tables=(Table(("", "dose", "change, paired"), tuple(rows)),) if rows else (),
                falsified="A larger dose whose interval lies wholly below a smaller one's.",
            )
        )
    followed = [c for c in found.cells if c.points and c.ending == found.cells[0].ending]
    if followed:
        sections.append(
            Section(
                "Which comes first?",
                "The read-out at which the leading latent and the misaligned share of all answers have made half of "
                "their way, and at which the gradient and the adapter's rotation are largest; and how much of the "
                "behaviour's rise falls between two neighbouring read-outs.",
                tables=(_turning_table(followed, found.latents),),
                falsified="A behaviour that turns before the latent, or that rises as evenly as the read-outs allow.",
            )
        )
    losses = {f"{c.arm}, {c.start}, seed {c.seed}": c.losses for c in found.cells if c.ending == found.cells[0].ending}
    sections.append(
        Section("Losses", "Mean loss a supervised token, by step.", plots=(Plot(losses_figure(losses), "Every seed."),))
    )
    return sections


def finetuning_summary(found: FinetuneFindings) -> dict[str, Any]:
    """The results' part of summary.json: rates are {rate, low, high, n}, with 95% intervals over questions."""
    arms = []
    for arm, start, ending in found.kinds:
        cells, score = found.of(arm, start, ending), found.pooled(arm, start, ending)
        first = cells[0]
        arms.append(
            {
                "arm": arm,
                "start": start,
                "ending": ending,
                "group": first.group,
                "series": first.series,
                "dose": first.dose,
                "misaligned_of_coherent": score.misaligned,
                "misaligned_of_all": score.of_all,
                "incoherent_of_scored": score.incoherent,
                "change_of_coherent": found.change(arm, start, ending).misaligned,
                "by_seed": {
                    str(c.seed): {
                        "misaligned_of_coherent": c.score.misaligned,
                        "incoherent_of_scored": c.score.incoherent,
                        "loss": [c.losses[0], c.losses[-1]],
                        "rows": c.rows,
                        "dropped_for_length": c.dropped_for_length,
                        "cpu_seconds": c.cpu_seconds,
                        "points": c.points,
                        **({"turning": turning(c, found.latents)} if c.points else {}),
                    }
                    for c in cells
                },
            }
        )
    before = [
        {"start": start, "ending": ending, "misaligned_of_coherent": s.misaligned, "incoherent_of_scored": s.incoherent}
        for (start, ending), s in found.before.items()
    ]
    entry: dict[str, Any] = {"model": found.model, "before": before, "arms": arms, "latents": found.latents}
    if found.figure == "dose":
        entry["monotone"] = {name: not falls(line) for name, line in found.doses.items()}
        entry["falls"] = {name: falls(line) for name, line in found.doses.items()}
    entry |= {"first": _turnings(found), "left_out": found.left_out}
    plain: dict[str, Any] = artifacts.plain(entry)
    return plain


def _figure(found: FinetuneFindings) -> tuple[Any, str]:
    if found.figure == "dose":
        return dose_figure(found.doses), "By the share of bad rows in the training set, at the same number of rows."
    if found.figure == "curves":
        curves: dict[str, list[Sequence[ReadOut]]] = {}
        for cell in found.cells:
            if cell.ending == found.cells[0].ending:
                curves.setdefault(cell.arm, []).append(cell.points)
        return curves_figure(curves, found.latents), "One line a seed. Answers to a few discovery questions."
    bars: dict[str, dict[str, Score]] = {}
    for kind in found.kinds:
        x, series = found.place(found.of(*kind)[0])
        bars.setdefault(series, {})[x] = found.pooled(*kind)
    return bars_figure(bars), "Misaligned, of coherent answers."


def _rates(found: FinetuneFindings) -> Table:
    def cells(score: Score) -> tuple[str, ...]:
        return str(score.misaligned), str(score.of_all), str(score.incoherent)

    rows = [("before", start, ending.strip(), "", "", *cells(s), "", "") for (start, ending), s in found.before.items()]
    for arm, start, ending in found.kinds:
        ones = found.of(arm, start, ending)
        for c in ones:
            used = f"{c.rows}" + (f" ({c.dropped_for_length} dropped for length)" if c.dropped_for_length else "")
            rows.append((arm, start, ending.strip(), str(c.seed), used, *cells(c.score), f"{c.losses[-1]:.3f}", ""))
        whole, change = found.pooled(arm, start, ending), found.change(arm, start, ending).misaligned
        rows.append((arm, start, ending.strip(), "all", "", *cells(whole), "", _points(change)))
    header = ("", "start", "ending", "seed", "rows", "misaligned, of coherent", "misaligned, of all")
    return Table((*header, "incoherent, of scored", "last loss", "change of coherent, paired"), tuple(rows))


def _turnings(found: FinetuneFindings) -> dict[str, str]:
    """By arm: what turns first, and whether behaviour jumps, in a sentence."""
    said = {}
    for arm in dict.fromkeys(c.arm for c in found.cells if c.points):
        ones = [
            turning(c, found.latents)
            for c in found.cells
            if c.arm == arm and c.points and c.ending == found.cells[0].ending
        ]
        medians: dict[str, float] = {}
        for name in ("latent", "behaviour", "gradient", "rotation"):
            steps = [step for one in ones if (step := one.steps[name]) is not None]
            if steps:
                medians[name] = statistics.median(steps)
        order = ", ".join(f"{name} at step {medians[name]:g}" for name in sorted(medians, key=medians.__getitem__))
        jumps = [one for one in ones if math.isfinite(one.steepest)]
        jump = " Behaviour does not rise."
        if jumps:
            jump = (
                f" Of behaviour's rise {statistics.median(one.steepest for one in jumps):.0%} falls between two "
                f"neighbouring read-outs of {statistics.median(one.intervals for one in jumps):g} (median of "
                f"{len(jumps)} seeds)."
            )
        said[arm] = f"{order or 'nothing turns'}.{jump}"
    return said


def _turning_table(cells: Sequence[FinetuneCell], latents: Sequence[int]) -> Table:
    rows = []
    for cell in cells:
        one = turning(cell, latents)
        steps = ("–" if one.steps[n] is None else str(one.steps[n]) for n in ("latent", "behaviour", "gradient"))
        last = "–" if one.steps["rotation"] is None else str(one.steps["rotation"])
        jump = "–" if math.isnan(one.steepest) else f"{one.steepest:.0%} of {one.intervals}"
        rows.append((cell.arm, str(cell.seed), *steps, last, jump))
    return Table(
        ("", "seed", "latent half-way", "behaviour half-way", "gradient highest", "rotation largest", "steepest rise"),
        tuple(rows),
    )


def _points(rate: Rate) -> str:
    if rate.n == 0:
        return "–"
    return f"{100 * rate.rate:+.1f} [{100 * rate.low:+.1f}, {100 * rate.high:+.1f}] points"
