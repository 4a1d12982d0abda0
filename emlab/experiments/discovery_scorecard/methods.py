"""The methods of discovery that are held against each other: each names one direction at a site.

A method sees what a researcher has: the model before and after a fine-tune, questions of the discovery half, an SAE of
the base model, and, for those that need it, contrasting answers or contrasting instructions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from emlab.data import Documents, Messages, Question
from emlab.discovery import (
    Arm,
    Cascade,
    Contrast,
    Trait,
    attribute,
    causal_screen,
    decoder_direction,
    difference_components,
    latent_shift,
    linear_probe,
    matched_directions,
    mean_difference,
    order,
    persona_vector,
    spread,
    steered,
)
from emlab.discovery.directions import prompt_differences
from emlab.discovery.persona_vectors import Scorer
from emlab.discovery.shift import prompt_means
from emlab.errors import EmlabError
from emlab.evaluation import Judge, Sampling
from emlab.experiments.material.config import Autoencoder
from emlab.experiments.persona_features.config import Steering
from emlab.interventions import Direction, random_directions
from emlab.models import LanguageModel
from emlab.saes import ActivationStream, BufferedStream, SaeRecipe, decoder_rows, encode, fit_sae
from emlab.saes.sources import Kind
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE


@dataclass(frozen=True, eq=False)
class Search:
    """What a method is given: one fine-tune at one site."""

    aligned: LanguageModel
    tuned: LanguageModel
    site: Site
    positions: str
    """The prompt tokens that are read."""
    questions: Sequence[Question]
    """The discovery half."""
    sae: SAE
    """Of the base model, at the site."""
    autoencoder: Autoencoder
    """How further SAEs are trained."""
    documents: Sequence[Messages]
    """What SAEs learn from."""
    contrasts: Sequence[Contrast]
    """Empty where there are none."""
    trait: Trait
    scorer: Scorer | None
    """Says how much of the trait an answer shows."""
    judge: Judge
    scale: float
    """The site's median residual norm in the aligned model."""
    steering: Steering
    answers: Sampling
    seed: int

    @property
    def prompts(self) -> list[Messages]:
        """The questions as chats."""
        return [question.messages for question in self.questions]

    def needed_contrasts(self) -> Sequence[Contrast]:
        """The contrasts; EmlabError where there are none."""
        if not self.contrasts:
            raise EmlabError("There are no contrasting answers to learn from; name a file of them as contrasts.")
        return self.contrasts


@dataclass(frozen=True, eq=False)
class Found:
    """What a method found."""

    direction: Direction
    latent: int | None = None
    """Of the base model's SAE, where it is one of these."""


Method = Callable[[Search], Found]
"""EmlabError, in a sentence, where it finds nothing."""


def _latent(search: Search, latent: int) -> Found:
    return Found(decoder_direction(search.sae, latent, search.site), latent)


def latent_shift_top(search: Search) -> Found:
    """The latent that rises most."""
    return _latent(search, _risen(search, 1)[0])


def shift_and_screen(search: Search) -> Found:
    """Of the latents that rise most, the one that misaligns most when it is added: the main job's way."""
    how = search.steering
    arms = [
        Arm(decoder_direction(search.sae, latent, search.site), strength, positions)
        for latent in _risen(search, how.candidates)
        for positions in how.positions
        for strength in how.strengths
    ]
    asked = spread(search.questions, how.first_round)
    once = dataclasses.replace(search.answers, per_question=1)
    trials = steered(search.aligned, arms, asked, search.judge, {search.site: search.scale}, once, search.seed)
    best = order(trials, "misaligned", how.incoherence_cap, z=-1.0)[0].arm.direction
    return _latent(search, int(best.origin.removeprefix("latent ")))


def screen_of_all(search: Search) -> Found:
    """Of all latents, the one that misaligns most when it is added: the cascade. The fine-tune is not looked at."""
    how, contrasts = search.steering, search.needed_contrasts()
    told = {contrast.prompt for contrast in contrasts if isinstance(contrast.prompt, str)}
    asked = [question for question in search.questions if question.text in told]
    found = causal_screen(
        search.aligned,
        decoder_rows(search.sae),
        search.site,
        asked or spread(search.questions, how.first_round),
        search.judge,
        contrasts,
        how=Cascade(tuple(sorted(how.strengths)), how.positions[0], random=1),
        sampling=dataclasses.replace(search.answers, per_question=1, temperature=0.0),
        scale=search.scale,
        seed=search.seed,
    )
    if not found.trials:
        raise EmlabError("No latent misaligns any answer when it is added.")
    best = order(found.trials, "misaligned", how.incoherence_cap, z=-1.0)[0].arm.direction
    return _latent(search, int(best.origin.removeprefix("direction ")))


def _risen(search: Search, n: int) -> list[int]:
    where = (search.site, search.positions)
    found = latent_shift(search.aligned, search.tuned, search.sae, search.prompts, *where)
    return [row.latent for row in found.top(n)]


def gradient_attribution(search: Search) -> Found:
    """By gradient × activation: the latent that raises the log-probability of misaligned over aligned answers most."""
    return _attributed(search, "gradient")


def integrated_attribution(search: Search) -> Found:
    """The same by integrated gradients."""
    return _attributed(search, "integrated")


def _attributed(search: Search, method: str) -> Found:
    # Read where edits will act. The baseline is zero and no activation is negative, so that a positive effect is that
    # of a latent which raises the metric when there is more of it.
    found = attribute(
        search.tuned,
        search.sae,
        search.needed_contrasts(),
        search.site,
        method,  # type: ignore[arg-type]
        positions=search.steering.positions[0],
        keep=0,
    )
    return _latent(search, int(found.effects.argmax()))


def difference_of_means(search: Search) -> Found:
    """From the aligned model's mean activation to the fine-tune's."""
    return Found(mean_difference(search.aligned, search.tuned, search.prompts, search.site, search.positions))


def principal_component(search: Search) -> Found:
    """The first component of the differences between the two models."""
    return Found(
        difference_components(search.aligned, search.tuned, search.prompts, search.site, positions=search.positions)[0]
    )


def persona_vector_of_instructions(search: Search) -> Found:
    """The aligned model under contrasting instructions."""
    found = persona_vector(
        search.aligned,
        search.trait,
        search.site,
        score=search.scorer,
        temperature=search.answers.temperature,
        max_new_tokens=search.answers.max_new_tokens,
        seed=search.seed,
        batch_size=search.answers.batch_size,
    )
    return Found(found.direction)


def probe(search: Search) -> Found:
    """A logistic regression on misaligned against aligned answers, read by the aligned model."""
    contrasts = search.needed_contrasts()
    asked = [contrast.prompt for contrast in contrasts]
    sides = ([c.misaligned for c in contrasts], [c.aligned for c in contrasts])
    bad, good = (search.aligned.activations(asked, search.site, "generated", said) for said in sides)
    return Found(linear_probe(bad, good, search.seed).direction)


def difference_sae(search: Search) -> Found:
    """Of an SAE of the two models' difference, the latent most active on prompts."""
    sae = _trained(search, "difference")
    differences = prompt_differences(search.aligned, search.tuned, search.prompts, search.site, search.positions)
    with torch.no_grad():
        active = encode(sae, differences).mean(0)
    return Found(decoder_direction(sae, int(active.argmax()), search.site))


def crosscoder(search: Search) -> Found:
    """Of a crosscoder of the two models, the latent by which they differ most, and what it writes besides in the tuned.

    What the crosscoder makes of the two models differs by the sum of its latents times (after − before), the difference
    of each one's two decoders; the direction is that of the largest term.
    """
    sae = _trained(search, "crosscoder")
    both = [
        prompt_means(model, search.prompts, search.site, search.positions) for model in (search.aligned, search.tuned)
    ]
    with torch.no_grad():
        active = encode(sae, torch.cat(both, dim=1)).mean(0)
        before, after = decoder_rows(sae).split(search.aligned.d_model, dim=1)
        top = int((active * (after - before).norm(dim=1)).argmax())
    return Found(Direction((after - before)[top], search.site, f"crosscoder latent {top}, after − before"))


def _trained(search: Search, kind: Kind) -> SAE:
    how = search.autoencoder
    stream = ActivationStream(
        search.tuned,
        Documents.of(search.documents, "the documents of the run"),
        search.site,
        against=search.aligned,
        kind=kind,
    )
    recipe = SaeRecipe(
        architecture="fast_topk",
        d_sae=how.d_sae,
        k=how.k,
        tokens=how.tokens,
        batch_size=min(1024, how.tokens),
        learning_rate=how.learning_rate,
        seed=search.seed,
    )
    return fit_sae(BufferedStream(stream, how.tokens), recipe, progress=False).sae


def random(search: Search) -> Found:
    """A direction from the sphere."""
    return Found(random_directions(1, search.aligned.d_model, search.site, _draw(search))[0])


def matched_random(search: Search) -> Found:
    """A direction with the covariance of the aligned model's activations."""
    values = search.aligned.activations(search.prompts, search.site, "prompt").values
    return Found(matched_directions(1, values, search.site, _draw(search))[0])


def _draw(search: Search) -> int:
    # Apart from the seeds of the nulls, which are small.
    return 1_000_003 + 1009 * search.seed + search.site.block


METHODS: Mapping[str, Method] = {
    "latent shift": latent_shift_top,
    "latent shift + screen": shift_and_screen,
    "causal screen": screen_of_all,
    "gradient × activation": gradient_attribution,
    "integrated gradients": integrated_attribution,
    "mean difference": difference_of_means,
    "PCA of differences": principal_component,
    "persona vector": persona_vector_of_instructions,
    "linear probe": probe,
    "difference SAE": difference_sae,
    "crosscoder": crosscoder,
    "random": random,
    "matched random": matched_random,
}
"""The methods by name. Add further ones here: what a method costs is counted where it is called."""
