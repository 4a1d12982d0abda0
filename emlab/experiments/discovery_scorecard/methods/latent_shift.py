"""Latents of the base model's SAE that fire more after the fine-tune than before."""

from __future__ import annotations

import dataclasses

from emlab.discovery import SteeringArm, decoder_direction, latent_shift, order, spread, steered
from emlab.experiments.discovery_scorecard.method import Search, method


@method("latent shift", "tuned", "sae", finds="latents", place=1)
def risen(search: Search, n: int = 1) -> list[int]:
    """The latents that rise most."""
    where = (search.site, search.settings.shift_positions)
    found = latent_shift(search.aligned, search.tuned, search.sae, search.prompts, *where)
    return [row.latent for row in found.top(n)]


@method("latent shift + screen", "tuned", "sae", "judge", finds="latents", place=2)
def screened(search: Search) -> list[int]:
    """Of the latents that rise most, the one that misaligns most when it is added: the way of `persona_features`."""
    settings = search.settings
    steering = settings.steering
    latents = risen(search, steering.candidates)
    arms = [
        SteeringArm(decoder_direction(search.sae, latent, search.site), strength, positions)
        for latent in latents
        for positions in steering.positions
        for strength in steering.strengths
    ]
    asked = spread(search.questions, steering.first_round)
    once = dataclasses.replace(settings.answers, per_question=1)
    trials = steered(search.aligned, arms, asked, search.judge, {search.site: search.scale}, once, settings.seed)
    ranked = order(trials, "misaligned", steering.incoherence_cap, z=-1.0)
    return [int(trial.arm.name.removeprefix("latent ")) for trial in ranked[:1]]
