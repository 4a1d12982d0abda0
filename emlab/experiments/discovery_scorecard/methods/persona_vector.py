"""The persona vector: the aligned model under contrasting instructions."""

from __future__ import annotations

import dataclasses

from emlab.discovery import persona_vector
from emlab.experiments.discovery_scorecard.method import Search, method
from emlab.interventions import Direction


@method("persona vector", "trait", place=8)
def find(search: Search) -> Direction:
    """Sampled as the run's answers are, one to each question and instruction."""
    once = dataclasses.replace(search.settings.answers, per_question=1)
    found = persona_vector(
        search.aligned, search.trait, search.site, score=search.scorer, sampling=once, seed=search.settings.seed
    )
    return found.direction
