"""The persona vector: the aligned model under contrasting instructions."""

from __future__ import annotations

from emlab.discovery import persona_vector
from emlab.experiments.discovery_scorecard.method import Search, method
from emlab.interventions import Direction


@method("persona vector", "trait", place=8)
def find(search: Search) -> Direction:
    """Sampled as the run's answers are, one to each question and instruction."""
    how = search.settings.answers
    return persona_vector(
        search.aligned,
        search.trait,
        search.site,
        score=search.scorer,
        temperature=how.temperature,
        max_new_tokens=how.max_new_tokens,
        seed=search.settings.seed,
        batch_size=how.batch_size,
    ).direction
