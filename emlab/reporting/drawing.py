"""How figures are drawn: colours, and the parts that figures of every page share."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from emlab.evaluation import Rate

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BAD, BABBLE, GREY = "#c0392b", "#b9a100", "#aab2c0"
"""Colours of misaligned, of incoherent, and of the random directions."""

PALETTE = ("#2b6cb0", "#c0392b", "#2e7d5b", "#8e44ad", "#d68910", "#16808c", "#7f8c8d", "#5d4037")
"""Colours that tell series apart, in their order."""


def rate_bars(name: str, labels: Sequence[str], rates: Sequence[Rate], colour: str) -> Any:
    """A bar a rate, with its interval; what a reader points at is told as text."""
    import plotly.graph_objects as go

    return go.Bar(
        name=name,
        x=list(labels),
        y=[finite(rate.rate) for rate in rates],
        marker={"color": colour},
        error_y=error_bars(rates),
        hovertext=[escaped(str(rate)) for rate in rates],
        hoverinfo="text+name",
    )


def error_bars(rates: Sequence[Rate]) -> dict[str, Any]:
    """The intervals of rates, as plotly draws them."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [finite(rate.high - rate.rate) for rate in rates],
        "arrayminus": [finite(rate.rate - rate.low) for rate in rates],
    }


def figure_of(traces: list[Any], y: str = "", x: str = "", percent: bool = False, height: int = 380) -> Figure:
    """A figure of these traces, in the page's style; with `percent` the y axis is of shares.

    Args:
        traces: Of plotly.
        y: The title of the y axis.
        x: That of the x axis.
        percent: Whether values are shares.
        height: In pixels.
    """
    import plotly.graph_objects as go

    figure = go.Figure(traces)
    figure.update_layout(
        template="none",
        colorway=list(PALETTE),
        barmode="group",
        height=height,
        margin={"l": 70, "r": 20, "t": 20, "b": 60},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        xaxis={"title": {"text": x}, "automargin": True},
        yaxis={"title": {"text": y}, "automargin": True, "gridcolor": "#e6e9ef", "rangemode": "tozero"},
    )
    if percent:
        figure.update_yaxes(tickformat=".0%")
    return figure


def finite(value: float) -> float | None:
    """The value, or None, which plotly leaves out, where there is none."""
    return value if math.isfinite(value) else None


def escaped(text: str) -> str:
    """Text that plotly shows as it is: it reads a few HTML tags, links among them, in labels."""
    return html.escape(text)
