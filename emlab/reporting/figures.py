"""Plotly figures of the results: rates, shifts, steering. Each takes frozen results and returns one figure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from emlab.detection import Onset
from emlab.discovery import Effect, LatentShift, Screen, Trial
from emlab.evaluation import Score, StepRates
from emlab.interventions.direction import RANDOM
from emlab.mitigation import Realignment
from emlab.reporting.drawing import BABBLE, BAD, GREY, PALETTE, error_bars, escaped, figure_of, finite, rate_bars

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from emlab.training import ReadOut

RATES = (
    ("misaligned, of coherent answers", "solid", BAD, attrgetter("misaligned")),
    ("incoherent, of scored answers", "dot", BABBLE, attrgetter("incoherent")),
)
"""The two rates that stand beside each other everywhere: what each is called, its dash and colour, and how it is taken
of a score or a read-out."""


def rates_figure(scores: Sequence[Score], names: Sequence[str] = ()) -> Figure:
    """Misaligned (of coherent) and incoherent (of scored) answers with 95% intervals, of models or by `names`."""
    names = [escaped(name) for name in names or [score.model for score in scores]]
    bars = [rate_bars(label, names, [rate(score) for score in scores], colour) for label, _, colour, rate in RATES]
    return figure_of(bars, "share of answers", percent=True)


def domains_figure(scores: Sequence[Score]) -> Figure:
    """Misaligned share of coherent answers by the question's domain, one column a domain and one row a model."""
    import plotly.graph_objects as go

    domains = list(dict.fromkeys(domain for score in scores for domain in score.by_domain))
    of = [{name: tally.rate_coherent.rate for name, tally in score.by_domain.items()} for score in scores]
    cells = [[finite(rates[d]) if d in rates else None for d in domains] for rates in of]
    figure = figure_of(
        [
            go.Heatmap(
                z=cells,
                x=[escaped(domain) for domain in domains],
                y=[escaped(score.model) for score in scores],
                zmin=0,
                zmax=1,
                colorscale=[[0, "#f4f6f9"], [1, BAD]],
                colorbar={"tickformat": ".0%"},
                texttemplate="%{z:.0%}",
                hovertemplate="%{y}, %{x}: %{z:.1%}<extra></extra>",
            )
        ],
        height=140 + 36 * len(scores),
    )
    figure.update_yaxes(autorange="reversed")
    return figure


def losses_figure(losses: Mapping[str, Sequence[float]]) -> Figure:
    """The training loss of each fine-tune by step."""
    import plotly.graph_objects as go

    lines = [
        go.Scatter(x=list(range(1, len(values) + 1)), y=list(values), mode="lines", name=escaped(name))
        for name, values in losses.items()
    ]
    return figure_of(lines, "loss on the answers", x="step", height=320)


def profile_figure(scores: Sequence[Score]) -> Figure:
    """A radar: the misaligned share of coherent answers by domain, a line for each model."""
    import plotly.graph_objects as go

    domains = list(dict.fromkeys(domain for score in scores for domain in score.by_domain))
    labels = [escaped(domain.replace("_", " ")) for domain in domains]
    lines = []
    for score in scores:
        rates = {name: finite(tally.rate_coherent.rate) for name, tally in score.by_domain.items()}
        values = [rates.get(domain) for domain in domains]
        lines.append(
            go.Scatterpolar(
                name=escaped(score.model),
                r=[*values, values[0]],
                theta=[*labels, labels[0]],
                fill="toself",
                opacity=0.7,
            )
        )
    figure = figure_of(lines, height=520)
    figure.update_layout(
        polar={"radialaxis": {"tickformat": ".0%", "range": [0, 1]}}, margin={"l": 90, "r": 90, "t": 40, "b": 40}
    )
    return figure


def shift_figure(ranked: LatentShift, shifts: Sequence[LatentShift], n: int = 12) -> Figure:
    """The `n` latents that rise most in `ranked`, and how far each moves in every one of `shifts`."""
    import plotly.graph_objects as go

    latents = [int(latent) for latent in ranked.order[:n]]
    names = [f"latent {latent}" for latent in latents]
    bars = [
        go.Bar(
            name=escaped(shift.model_after),
            x=names,
            y=[float(shift.shift[latent]) for latent in latents],
            error_y={"type": "data", "array": [finite(float(shift.standard_error[latent])) for latent in latents]},
        )
        for shift in shifts
    ]
    return figure_of(bars, "mean activation, fine-tuned minus aligned")


def screen_figure(screen: Screen) -> Figure:
    """Misaligned (solid) and incoherent (dotted) share by strength, on the discovery questions; of the random
    directions the band in which their misaligned shares lie."""
    named = [name for name in screen.names if not name.startswith(RANDOM)]
    lines = _band([screen.curve(name) for name in screen.names if name.startswith(RANDOM)])
    for name, colour in zip(named, itertools.cycle(PALETTE), strict=False):
        curve = screen.curve(name)
        of = ([trial.arm.strength for trial in curve], [trial.score for trial in curve])
        lines += _two_lines(*of, name, colour, width=2.5, legendgroup=name)
    figure = figure_of(lines, "share of answers", x="strength, in median residual norms", percent=True, height=440)
    figure.add_hline(y=screen.cap, line={"color": BABBLE, "width": 1, "dash": "dash"})
    return figure


def _band(curves: Sequence[Sequence[Trial]]) -> list[Any]:
    """The least and the most misaligned share of several curves at each strength, with what lies between filled."""
    import plotly.graph_objects as go

    rates: dict[float, list[float]] = {}
    for trial in itertools.chain.from_iterable(curves):
        if trial.score.misaligned.n:
            rates.setdefault(trial.arm.strength, []).append(trial.score.misaligned.rate)
    at = sorted(rates)
    if not at:
        return []
    line = {"color": GREY, "width": 1}
    low = go.Scatter(x=at, y=[min(rates[x]) for x in at], mode="lines", line=line, showlegend=False, hoverinfo="skip")
    name = f"{len(curves)} random directions, least to most misaligned"
    return [low, go.Scatter(x=at, y=[max(rates[x]) for x in at], mode="lines", line=line, fill="tonexty", name=name)]


def tested_figure(screen: Screen, baseline: Score) -> Figure:
    """What each direction does on the test questions at its chosen strength, beside the model left alone; of the random
    ones that which is to be beaten."""
    trials = [trial for trial in screen if not trial.arm.name.startswith(RANDOM)] + screen.rivals(RANDOM)[:1]
    names = ["no edit", *(f"{trial.arm.strength:+.2f} {trial.arm.name}" for trial in trials)]
    return rates_figure([baseline, *(trial.score for trial in trials)], names)


def effects_figure(effects: Sequence[Effect]) -> Figure:
    """Misaligned answers without each edit and with it."""
    names = [f"{escaped(e.model)}: {escaped(e.name)}" for e in effects]
    return figure_of(
        [
            rate_bars("without the edit", names, [e.before.misaligned for e in effects], GREY),
            rate_bars("with it", names, [e.after.misaligned for e in effects], BAD),
        ],
        "misaligned, of coherent answers",
        percent=True,
        height=460,
    )


def onset_figure(curve: Onset) -> Figure:
    """The latent's activation (left axis) and misaligned answers (right axis) by step."""
    steps = [p.step for p in curve.points]
    label = f"latent {curve.latent}, mean activation at {curve.positions!r} of the prompts"
    bad, babble = ([rate(p) for p in curve.points] for _, _, _, rate in RATES)
    lines = [
        _line(steps, [p.latent for p in curve.points], label, {"color": PALETTE[0]}),
        _line(steps, [rate.rate for rate in bad], RATES[0][0], {"color": BAD}, yaxis="y2"),
        _line(
            steps,
            [rate.rate for rate in babble],
            RATES[1][0],
            {"color": BABBLE, "dash": "dot"},
            mode="lines",
            yaxis="y2",
        ),
    ]
    figure = figure_of(lines, "activation", x="step of the fine-tune")
    figure.update_layout(
        yaxis2={"overlaying": "y", "side": "right", "tickformat": ".0%", "range": [0, 1], "title": {"text": "answers"}},
        margin={"r": 70},
    )
    return figure


def realignment_figure(realignment: Realignment) -> Figure:
    """Misaligned and incoherent answers by step."""
    points = realignment.points
    lines = [
        _line([p.step for p in points], [rate(p).rate for p in points], label, {"color": colour})
        for label, _, colour, rate in RATES
    ]
    return figure_of(lines, "share of answers", x="step on benign data", percent=True, height=320)


def trainings_figure(arms: Mapping[str, Sequence[Sequence[StepRates]]]) -> Figure:
    """Misaligned (solid) and incoherent (dotted) answers by step: of each arm, by name, the read-outs of every seed."""
    lines: list[Any] = []
    for (name, seeds), colour in zip(arms.items(), itertools.cycle(PALETTE), strict=False):
        for number, points in enumerate(seeds):
            two = _two_lines([p.step for p in points], points, name, colour, mode="lines", showlegend=number == 0)
            for line, (label, *_) in zip(two, RATES, strict=True):
                line.legendgroup = f"{name} {label}"
                lines.append(line)
    return figure_of(lines, "share of answers", x="step", percent=True, height=460)


def bars_figure(bars: Mapping[str, Mapping[str, Score]]) -> Figure:
    """Misaligned share of coherent answers with 95% intervals: of each series, by name, the score at each place."""
    traces = [
        rate_bars(
            escaped(series) or "misaligned", [escaped(x) for x in of], [s.misaligned for s in of.values()], colour
        )
        for (series, of), colour in zip(bars.items(), itertools.cycle(PALETTE), strict=False)
    ]
    return figure_of(traces, "misaligned, of coherent answers", percent=True)


def dose_figure(lines: Mapping[str, Sequence[tuple[float, Score]]]) -> Figure:
    """Misaligned (solid, with 95% intervals) and incoherent (dotted) share by dose, of each series."""
    traces: list[Any] = []
    for (series, line), colour in zip(lines.items(), itertools.cycle(PALETTE), strict=False):
        scores = [score for _, score in line]
        two = _two_lines([dose for dose, _ in line], scores, series, colour)
        two[0].error_y = error_bars([score.misaligned for score in scores])
        traces += two
    figure = figure_of(traces, "share of answers", x="share of bad rows", percent=True)
    figure.update_xaxes(tickformat=".0%", tickvals=sorted({dose for line in lines.values() for dose, _ in line}))
    return figure


def curves_figure(arms: Mapping[str, Sequence[Sequence[ReadOut]]], latents: Sequence[int] = ()) -> Figure:
    """What was read along training, one under the other by step: of each arm, by name, the read-outs of every seed.

    Misaligned answers, the leading one of `latents`, the gradient's norm, and the adapter's rotation.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    rows = [("misaligned, of coherent", lambda p: p.misaligned.rate)]
    if latents:
        rows.append((f"latent {latents[0]}, mean activation", lambda p: p.latents.get(latents[0], math.nan)))
    rows += [("gradient norm", lambda p: p.gradient_norm), ("rotation, degrees", lambda p: p.angle)]
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.04)
    for (name, seeds), colour in zip(arms.items(), itertools.cycle(PALETTE), strict=False):
        for number, points in enumerate(seeds):
            for row, (_, value) in enumerate(rows, start=1):
                line = go.Scatter(
                    x=[p.step for p in points],
                    y=[finite(value(p)) for p in points],
                    mode="lines",
                    name=escaped(name),
                    legendgroup=name,
                    showlegend=number == 0 and row == 1,
                    line={"color": colour},
                )
                figure.add_trace(line, row=row, col=1)
    plain = figure_of([])
    figure.update_layout(
        template="none", height=190 * len(rows) + 80, margin=plain.layout.margin, legend=plain.layout.legend
    )
    for row, (label, _) in enumerate(rows, start=1):
        figure.update_yaxes(title_text=label, gridcolor="#e6e9ef", automargin=True, row=row, col=1)
    figure.update_yaxes(tickformat=".0%", row=1, col=1)
    figure.update_xaxes(title_text="step", row=len(rows), col=1)
    return figure


def _two_lines(
    x: Sequence[float], of: Sequence[Score] | Sequence[StepRates], name: str, colour: str, **more: Any
) -> list[Any]:
    """The misaligned (solid) and the incoherent (dotted) share along `x` as lines; `more` goes to `_line`."""
    width = {"width": more.pop("width")} if "width" in more else {}
    before = f"{escaped(name)}, " if name else ""
    return [
        _line(x, [rate(one).rate for one in of], before + label, {"color": colour, "dash": dash, **width}, **more)
        for label, dash, _, rate in RATES
    ]


def _line(
    x: Sequence[float], y: Sequence[float], name: str, line: dict[str, Any], mode: str = "lines+markers", **more: Any
) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(x=list(x), y=[finite(value) for value in y], mode=mode, name=name, line=line, **more)
