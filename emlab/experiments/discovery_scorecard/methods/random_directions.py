"""Random directions: what must not pass."""

from __future__ import annotations

from emlab.discovery import matched_directions
from emlab.experiments.discovery_scorecard.method import Search, method
from emlab.interventions import Direction, random_directions


@method("random", place=12)
def random(search: Search) -> Direction:
    """A direction from the sphere."""
    return random_directions(1, search.aligned.d_model, search.site, _draw(search))[0]


@method("matched random", place=13)
def matched_random(search: Search) -> Direction:
    """A direction with the covariance of the aligned model's activations."""
    values = search.aligned.activations(search.prompts, search.site, "prompt").values
    return matched_directions(1, values, search.site, _draw(search))[0]


def _draw(search: Search) -> int:
    # Apart from the seeds of the nulls, which are small.
    return 1_000_003 + 1009 * search.settings.seed + search.site.block
