"""The latent that raises the log-probability of misaligned over aligned answers most, in the fine-tune."""

from __future__ import annotations

from typing import Literal

from emlab.discovery import AttributionTarget, attribute
from emlab.experiments.discovery_scorecard.method import Search, method


@method("gradient × activation", "tuned", "sae", "contrasts", finds="latents", place=4)
def gradient(search: Search) -> list[int]:
    """By gradient × activation."""
    return _strongest(search, "gradient")


@method("integrated gradients", "tuned", "sae", "contrasts", finds="latents", place=5)
def integrated(search: Search) -> list[int]:
    """By integrated gradients."""
    return _strongest(search, "integrated")


def _strongest(search: Search, by: Literal["gradient", "integrated"]) -> list[int]:
    # Read where edits will act. The baseline is zero and no activation is negative, so that a positive effect is that
    # of a latent which raises the metric when there is more of it.
    where = search.settings.steering.positions[0]
    found = attribute(
        search.tuned, search.sae, search.contrasts, search.site, by, AttributionTarget(positions=where), keep=0
    )
    return [int(found.effects.argmax())]
