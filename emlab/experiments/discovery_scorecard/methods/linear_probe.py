"""A logistic regression on misaligned against aligned answers, read by the aligned model."""

from __future__ import annotations

from emlab.discovery import linear_probe
from emlab.experiments.discovery_scorecard.method import Search, method
from emlab.interventions import Direction


@method("linear probe", "contrasts", place=9)
def find(search: Search) -> Direction:
    """Reads the answers' tokens."""
    asked = [contrast.prompt for contrast in search.contrasts]
    sides = ([c.misaligned for c in search.contrasts], [c.aligned for c in search.contrasts])
    bad, good = (search.aligned.activations(asked, search.site, "generated", said) for said in sides)
    return linear_probe(bad, good, search.settings.seed).direction
