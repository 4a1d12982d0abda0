"""Figures of discovery: what is drawn is what was found, and names are escaped."""

import pytest
import torch

from emlab.discovery import Attribution, AttributionCost, Cosines
from emlab.errors import EmlabError
from emlab.reporting import attribution_figure, cosines_figure
from emlab.sites import Site


def effects(values, method="gradient"):
    vector = torch.tensor(values)
    cost = AttributionCost(1, 1, 0.1)
    return Attribution("m", Site("resid_post", 0), method, "zero", "all", 2, 1.0, vector, vector, (), cost)


def test_the_heatmap_has_every_cosine():
    found = Cosines(("a", "<b>"), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    figure = cosines_figure(found)
    assert [list(row) for row in figure.data[0].z] == [[1.0, 0.5], [0.5, 1.0]]
    assert list(figure.layout.xaxis.ticktext) == ["a", "&lt;b&gt;"]


def test_estimates_are_drawn_over_what_was_ablated():
    figure = attribution_figure(effects([0.5, 9.0, -1.0]), effects([1.0, 0.0, -2.0], "exact"), 0.3)
    assert list(figure.data[0].x) == [1.0, -2.0] and list(figure.data[0].y) == [0.5, -1.0]
    with pytest.raises(EmlabError, match="different SAEs"):
        attribution_figure(effects([1.0]), effects([1.0, 2.0]), 0.3)
