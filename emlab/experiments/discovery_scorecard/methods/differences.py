"""Directions of the differences between the fine-tune's activations and the aligned model's."""

from __future__ import annotations

from emlab.discovery import difference_components, mean_difference
from emlab.experiments.discovery_scorecard.method import Search, method
from emlab.interventions import Direction


@method("mean difference", "tuned", place=6)
def mean(search: Search) -> Direction:
    """From the aligned model's mean activation to the fine-tune's."""
    where = (search.site, search.settings.shift_positions)
    return mean_difference(search.aligned, search.tuned, search.prompts, *where)


@method("PCA of differences", "tuned", place=7)
def component(search: Search) -> Direction:
    """The first component of the differences."""
    where = search.settings.shift_positions
    return difference_components(search.aligned, search.tuned, search.prompts, search.site, positions=where)[0]
