"""The figure that a result shows of itself (`result.plot()`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from emlab.detection import Onset
from emlab.discovery import Attribution, Cosines, Effect, LatentShift, Screen
from emlab.discovery.effects import MEASURES
from emlab.errors import EmlabError
from emlab.evaluation import Score
from emlab.mitigation import Realignment
from emlab.reporting.discovery_figures import cosines_figure
from emlab.reporting.drawing import BABBLE, BAD, escaped, figure_of, finite, rate_bars
from emlab.reporting.figures import (
    effects_figure,
    losses_figure,
    onset_figure,
    realignment_figure,
    screen_figure,
    shift_figure,
)
from emlab.training import FineTuned

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SHOWN = 20
"""Latents of an attribution."""


def score_figure(score: Score) -> Figure:
    """Misaligned (of coherent) and incoherent (of scored) answers with 95% intervals, of all and by domain."""
    tallies = {"all": score.overall, **(score.by_domain if len(score.by_domain) > 1 else {})}
    names, each = [escaped(name) for name in tallies], tallies.values()
    bars = [
        rate_bars("misaligned, of coherent answers", names, [tally.rate_coherent for tally in each], BAD),
        rate_bars("incoherent, of scored answers", names, [tally.rate_incoherent for tally in each], BABBLE),
    ]
    return figure_of(bars, "share of answers", percent=True)


def attribution_bars(found: Attribution) -> Figure:
    """The latents with the strongest effects, and their standard errors."""
    import plotly.graph_objects as go

    top = found.top(SHOWN)
    bar = go.Bar(
        x=[f"latent {latent}" for latent in top],
        y=[float(found.effects[latent]) for latent in top],
        error_y={"type": "data", "array": [finite(float(found.standard_error[latent])) for latent in top]},
    )
    return figure_of([bar], f"effect on {MEASURES.get(found.measure, found.measure)}")


OWN: dict[type, Callable[[Any], Figure]] = {
    Score: score_figure,
    LatentShift: lambda shift: shift_figure(shift, [shift]),
    Screen: screen_figure,
    Effect: lambda effect: effects_figure([effect]),
    Onset: onset_figure,
    Realignment: realignment_figure,
    FineTuned: lambda tuned: losses_figure({tuned.model.name: tuned.losses}),
    Cosines: cosines_figure,
    Attribution: attribution_bars,
}
"""The figure of each kind of result."""


def figure_of_result(result: Any) -> Figure:
    """The figure of a result's kind; EmlabError where it has none."""
    for kind, draw in OWN.items():
        if isinstance(result, kind):
            return draw(result)
    kinds = ", ".join(kind.__name__ for kind in OWN)
    raise EmlabError(f"A {type(result).__name__} has no figure; these have one: {kinds}.")
