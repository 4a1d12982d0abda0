"""The report of early warning: who raises the alarm, when, and at what price in false ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emlab import artifacts
from emlab.detection import Curve, Warned
from emlab.reporting.drawing import BAD, PALETTE, escaped, figure_of, finite
from emlab.reporting.evaluation import shown_rate
from emlab.reporting.page import Plot, Section, Table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class EarlyWarningFindings:
    """What a run found."""

    model: str
    fitted_on: tuple[str, ...]
    data: str
    """The set whose fine-tunes are watched."""
    samples: int
    """Prompts, or answers, that a monitor has of each reading."""
    share: float
    """The share of misaligned answers that is to be warned of."""
    false_positives: float
    steps: tuple[Warned, ...]
    doses: tuple[Warned, ...]
    steps_noise: tuple[Warned, ...]
    """Monitors whose scores are noise, along steps."""
    doses_noise: tuple[Warned, ...]
    curves: tuple[Curve, ...]
    """Along steps."""
    dose_curves: tuple[Curve, ...]
    controls: tuple[Curve, ...]


def early_warning_lead(found: EarlyWarningFindings) -> list[str]:
    """What came out, in sentences."""
    lines = [
        f"Fine-tunes of {found.model} on {found.data}, monitors fitted on {', '.join(found.fitted_on)} and given "
        f"{found.samples} prompts (or answers) a reading, with thresholds that leave at most "
        f"{found.false_positives:.0%} of those domains' controls above them, and false positives counted on controls "
        f"of the watched domain; the behaviour is there when {found.share:.0%} of the answers are misaligned."
    ]
    for what, rows, null in _ways(found):
        lines += [f"Along {what}, {row}." for row in rows]
        if null:
            lines.append(f"Along {what}, {_noise(null)}.")
    return lines


def _ways(found: EarlyWarningFindings) -> list[tuple[str, tuple[Warned, ...], tuple[Warned, ...]]]:
    return [("steps", found.steps, found.steps_noise), ("doses", found.doses, found.doses_noise)]


def _noise(rows: Sequence[Warned]) -> str:
    """What noise does that is quiet, as the other monitors must be."""
    quiet = [row for row in rows if row.quiet]
    said = f"noise ({len(rows)} monitors): {len(quiet)} of them quiet"
    if not quiet:
        return f"{said}, so it has lost"
    earlier, ties = (
        f"{np.mean(counts):.1f} (95th percentile {np.percentile(counts, 95, method='inverted_cdf')})"
        for counts in ([row.earlier for row in quiet], [row.ties for row in quiet])
    )
    return f"{said}; these are earlier on {earlier} and with the behaviour on {ties} of {rows[0].reached} on average"


def early_warning_sections(found: EarlyWarningFindings) -> list[Section]:
    """The parts of the page."""
    parts = []
    for what, rows, curves in (("steps", found.steps, found.curves), ("doses", found.doses, found.dose_curves)):
        if rows:
            parts.append(
                Section(
                    f"Along {what}",
                    "Where each monitor warns, and where the behaviour gets so far, seed by seed. False positives "
                    f"are of {len(found.curves)} control fine-tunes of one domain, and their interval is over these.",
                    plots=(Plot(curves_figure(curves, rows, what), f"Scores over their thresholds, by {what}."),),
                    tables=(_table(rows),),
                    falsified="a behavioural monitor, given as many samples, that warns as early.",
                )
            )
    return parts


def early_warning_summary(found: EarlyWarningFindings) -> dict[str, Any]:
    """The figures as plain values."""
    counts = {
        what: {
            name: {"quiet": row.quiet, "earlier": row.earlier, "ties": row.ties, "of": row.reached}
            for name, row in [*((row.monitor, row) for row in rows), *((f"noise {i}", r) for i, r in enumerate(null))]
        }
        for what, rows, null in _ways(found)
    }
    kept = {name: value for name, value in artifacts.plain(found).items() if not name.endswith("_noise")}
    said = {what: _noise(null) for what, _, null in _ways(found) if null}
    return {"warned": counts, "noise": said, **kept}


def curves_figure(curves: Sequence[Curve], rows: Sequence[Warned], what: str) -> Figure:
    """Misaligned answers of every seed, and above them where each monitor's alarm is raised."""
    import plotly.graph_objects as go

    lines = [
        go.Scatter(
            x=list(curve.at),
            y=[finite(rate.rate) for rate in curve.rates],
            mode="lines",
            name="misaligned, of coherent",
            legendgroup="behaviour",
            showlegend=number == 0,
            line={"color": BAD},
        )
        for number, curve in enumerate(curves)
    ]
    for row, colour, height in zip(rows, itertools.cycle(PALETTE), itertools.count(1), strict=False):
        at = [x for x in row.alarms if x is not None]
        lines.append(
            go.Scatter(
                x=at,
                y=[1 + 0.05 * height] * len(at),
                mode="markers",
                name=f"alarm of {escaped(row.monitor)}",
                marker={"color": colour, "symbol": "triangle-down", "size": 10},
            )
        )
    return figure_of(lines, "share of answers", x=what, percent=True, height=460)


def _table(rows: Sequence[Warned]) -> Table:
    def said(places: Sequence[float | None]) -> str:
        return ", ".join("never" if x is None else f"{x:g}" for x in places)

    return Table(
        ("monitor", "earlier", "with the behaviour", "alarms at", "behaviour there at", "false positives"),
        tuple(
            (
                row.monitor,
                *((f"{n} of {row.reached}" for n in (row.earlier, row.ties)) if row.quiet else ("lost: not quiet", "")),
                said(row.alarms),
                said(row.behaviour),
                shown_rate(row.false_positives),
            )
            for row in rows
        ),
    )
