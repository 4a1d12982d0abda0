"""Directions found in models: from a latent's decoder, and from the difference of two models' means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from emlab.discovery.shift import prompt_means
from emlab.errors import EmlabError
from emlab.interventions import Direction, Positions
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel
    from emlab.models.language_model import Prompt


def decoder_direction(sae: SAE, latent: int, site: Site) -> Direction:
    """The direction that `latent` writes: its decoder row, made unit."""
    if not 0 <= latent < sae.cfg.d_sae:
        raise EmlabError(f"the SAE has latents 0 to {sae.cfg.d_sae - 1} and no latent {latent}: choose one of these.")
    return Direction(sae.W_dec[latent], site, f"latent {latent}")


def mean_difference(
    model_a: LanguageModel,
    models_b: LanguageModel | Sequence[LanguageModel],
    prompts: Sequence[Prompt],
    site: Site,
    positions: Positions = "header",
) -> Direction:
    """From the mean activation of `model_a` to that of `models_b` (one, or the average of several) on the same prompts.

    Every prompt counts the same, however many positions it has. The direction's `norm` is the distance of the means.
    """
    models = [models_b] if not isinstance(models_b, Sequence) else list(models_b)
    if not models or not prompts:
        raise EmlabError("a mean difference needs a second model and prompts: give at least one of each.")
    before = prompt_means(model_a, prompts, site, positions).mean(0)
    after = torch.stack([prompt_means(m, prompts, site, positions).mean(0) for m in models]).mean(0)
    if not bool((after != before).any()):
        raise EmlabError(
            f"the models do not differ at {site} on these prompts: choose a site after the first trained block."
        )
    return Direction(after - before, site, "mean difference")
