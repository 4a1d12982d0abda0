"""Plotly figures of discovery: how alike directions are, and what attribution says beside exact ablation."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from emlab.discovery import Attribution, Cosines
from emlab.errors import EmlabError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def cosines_figure(cosines: Cosines) -> Figure:
    """A heatmap of the cosines, the first direction on top."""
    import plotly.graph_objects as go

    names = [html.escape(name) for name in cosines.names]
    # Numbers on the axes, names as their labels: two directions may have the same name.
    at, many = list(range(len(names))), len(names) > 20
    figure = go.Figure(
        go.Heatmap(
            z=cosines.values.tolist(),
            x=at,
            y=at,
            zmin=-1,
            zmax=1,
            colorscale="RdBu_r",
            zmid=0,
            texttemplate="" if many else "%{z:.2f}",
            customdata=[[f"{one}, {other}" for other in names] for one in names],
            hovertemplate="%{customdata}: %{z:.3f}<extra></extra>",
        )
    )
    figure.update_layout(template="none", height=220 + 26 * len(names), margin={"l": 20, "r": 20, "t": 20, "b": 20})
    labels = {"tickmode": "array", "tickvals": at, "ticktext": names, "automargin": True}
    figure.update_xaxes(**labels)
    figure.update_yaxes(autorange="reversed", **labels)
    return figure


def attribution_figure(estimate: Attribution, exact: Attribution, noise: float) -> Figure:
    """Each latent's estimated effect over its exact one; the band is noise. EmlabError where they do not match."""
    import plotly.graph_objects as go

    if len(estimate.effects) != len(exact.effects):
        raise EmlabError("The estimated and the exact effects are of different SAEs; draw those of one.")
    shown = (exact.effects != 0).nonzero()[:, 0]
    figure = go.Figure(
        go.Scatter(
            x=exact.effects[shown].tolist(),
            y=estimate.effects[shown].tolist(),
            mode="markers",
            text=[f"latent {latent}" for latent in shown.tolist()],
            hovertemplate="%{text}: exact %{x:.3f}, estimated %{y:.3f}<extra></extra>",
        )
    )
    figure.add_vrect(x0=-noise, x1=noise, fillcolor="#aab2c0", opacity=0.3, line_width=0)
    figure.update_layout(
        template="none",
        height=420,
        margin={"l": 70, "r": 20, "t": 20, "b": 60},
        xaxis={"title": {"text": "exact effect of ablating the latent"}},
        yaxis={"title": {"text": f"estimated: {html.escape(estimate.method)}"}, "automargin": True},
    )
    return figure
