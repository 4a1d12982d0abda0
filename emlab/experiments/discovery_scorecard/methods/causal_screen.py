"""Of all latents, the one that misaligns most when it is added: the cascade. The fine-tune is not looked at."""

from __future__ import annotations

import dataclasses

from emlab.discovery import Cascade, causal_screen, order, spread
from emlab.errors import EmlabError
from emlab.experiments.discovery_scorecard.method import Search, method
from emlab.saes import decoder_rows


@method("causal screen", "sae", "contrasts", "judge", finds="latents", place=3)
def find(search: Search) -> list[int]:
    """Asks the questions of the contrasts, where these are among them."""
    steering = search.settings.steering
    told = {contrast.prompt for contrast in search.contrasts if isinstance(contrast.prompt, str)}
    asked = [question for question in search.questions if question.text in told]
    greedy = dataclasses.replace(search.settings.answers, per_question=1, temperature=0.0)
    found = causal_screen(
        search.aligned,
        decoder_rows(search.sae),
        search.site,
        asked or spread(search.questions, steering.first_round),
        search.judge,
        search.contrasts,
        Cascade(tuple(sorted(steering.strengths)), steering.positions[0], random=1, sampling=greedy),
        scale=search.scale,
        seed=search.settings.seed,
    )
    if not found.trials:
        raise EmlabError("No latent misaligns any answer when it is added.")
    ranked = order(found.trials, "misaligned", steering.incoherence_cap, z=-1.0)
    return [int(ranked[0].arm.name.removeprefix("direction "))]
