"""SAEs trained on both models at once: of their difference, and crosscoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from emlab.data import Documents
from emlab.discovery import decoder_direction
from emlab.discovery.directions import prompt_differences
from emlab.discovery.shift import prompt_means
from emlab.experiments.discovery_scorecard.method import Search, method
from emlab.interventions import Direction
from emlab.saes import ActivationStream, BufferedStream, SaeRecipe, decoder_rows, encode, fit_sae
from emlab.saes.sources import Kind

if TYPE_CHECKING:
    from sae_lens import SAE


@method("difference SAE", "tuned", "documents", place=10)
def difference_sae(search: Search) -> Direction:
    """Of an SAE of the two models' difference, the latent most active on prompts."""
    sae, where = _trained(search, "difference"), (search.site, search.settings.shift_positions)
    with torch.no_grad():
        active = encode(sae, prompt_differences(search.aligned, search.tuned, search.prompts, *where)).mean(0)
    return decoder_direction(sae, int(active.argmax()), search.site)


@method("crosscoder", "tuned", "documents", place=11)
def crosscoder(search: Search) -> Direction:
    """Of a crosscoder of the two models, the latent by which they differ most, and what it writes besides in the tuned.

    What the crosscoder makes of the two models differs by the sum of its latents times (after − before), the difference
    of each one's two decoders; the direction is that of the largest term.
    """
    sae, where = _trained(search, "crosscoder"), (search.site, search.settings.shift_positions)
    both = [prompt_means(model, search.prompts, *where) for model in (search.aligned, search.tuned)]
    with torch.no_grad():
        active = encode(sae, torch.cat(both, dim=1)).mean(0)
        before, after = decoder_rows(sae).split(search.aligned.d_model, dim=1)
        top = int((active * (after - before).norm(dim=1)).argmax())
    return Direction((after - before)[top], search.site, f"crosscoder latent {top}, after − before")


def _trained(search: Search, kind: Kind) -> SAE:
    how, texts = search.settings.sae, Documents.of(search.documents, "the documents of the run")
    stream = ActivationStream(search.tuned, texts, search.site, against=search.aligned, kind=kind)
    recipe = SaeRecipe(
        architecture="fast_topk",
        d_sae=how.d_sae,
        k=how.k,
        tokens=how.tokens,
        batch_size=min(1024, how.tokens),
        learning_rate=how.learning_rate,
        seed=search.settings.seed,
    )
    return fit_sae(BufferedStream(stream, how.tokens), recipe, progress=False).sae
