"""The lab's stages one by one, by the names of models and files: what the verbs of the command line call.

A model is a checkpoint of the organism by name, a local Hugging Face folder, or a name on the Hub. An SAE is what
`load_sae` takes. A set is one of the organism's fine-tuning sets by name, or a dataset as `read_examples` takes it.
Questions are the organism's broad ones, judged by its exact judge; `emlab.verbs.evaluation` asks and judges
otherwise. Nothing that stands at `out` already is overwritten, and it is refused before anything is loaded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emlab import organism
from emlab.data import Question
from emlab.detection import Detection, Reading, detect
from emlab.discovery import (
    Effect,
    LatentShift,
    Screen,
    ScreenSettings,
    clamp_latents,
    decoder_direction,
    effect_of,
    latent_shift,
    natural_values,
    split_by_template,
    steer_screen,
)
from emlab.discovery.latents import check_latents
from emlab.discovery.screen import Toward
from emlab.discovery.selection import check_same_tokens
from emlab.errors import EmlabError
from emlab.evaluation import Sampling, sample, score
from emlab.experiments.material.documents import documents_for, for_template
from emlab.experiments.material.fidelity import ask_fidelity
from emlab.experiments.material.fine_tune import RECIPE, finetune
from emlab.experiments.material.judging import exact_judge
from emlab.experiments.material.models import folder_of, model_named
from emlab.experiments.material.sets import ALIGNMENT, benign_chats, fine_tuning_set
from emlab.interventions import random_directions
from emlab.mitigation import Realignment, realign
from emlab.models import LanguageModel
from emlab.saes import fitted_site, load_sae
from emlab.sites import Site
from emlab.training import FineTuned
from emlab.verbs.discovery import Shifts
from emlab.verbs.keeping import check_new, check_new_file, kept
from emlab.verbs.sae_training import sae

if TYPE_CHECKING:
    from sae_lens import SAE

__all__ = ["detect_models", "figures", "finetune", "mediate", "realign_model", "sae", "screen", "shift"]


def shift(before: str, after: str, sae: str | Path, out: str | Path | None = None) -> LatentShift:
    """The shift of every latent of `sae` between two models, on the discovery questions; `out` is a file."""
    check_new_file(out, ".csv", ".safetensors")
    autoencoder = load_sae(sae)
    prompts = [question.text for question in split_by_template(organism.broad_questions()).discovery]
    first, second = model_named(before), model_named(after)
    site = fitted_site(autoencoder, first)
    check_same_tokens(first, [second], prompts, None)
    ask_fidelity(autoencoder, sae, site, [first, second], prompts)
    return kept(latent_shift(first, second, autoencoder, prompts, site), out)


def screen(
    model: str,
    sae: str | Path,
    latents: Sequence[int],
    toward: Toward = "misaligned",
    strengths: Sequence[float] = (0.3, 0.6, 0.9, 1.2, 1.5),
    random: int = 20,
    seed: int = 0,
    out: str | Path | None = None,
) -> Screen:
    """Add latents to `model` (or subtract them, toward aligned) beside random directions, through the same search.

    `out` is a new folder.
    """
    if toward not in ("misaligned", "aligned"):
        raise EmlabError(f"A screen pushes toward misaligned or toward aligned, not toward {toward!r}.")
    check_new(out)
    judge = exact_judge(model)
    steered, autoencoder = model_named(model), load_sae(sae)
    site, questions = fitted_site(autoencoder, steered), split_by_template(organism.broad_questions())
    directions = [decoder_direction(autoencoder, latent, site) for latent in latents]
    ask_fidelity(autoencoder, sae, site, [steered], [q.text for q in questions.discovery])
    result = steer_screen(
        steered,
        [*directions, *random_directions(random, steered.d_model, site, seed)],
        questions.discovery[::2],
        questions.test,
        judge,
        toward,
        ScreenSettings(tuple(strengths), first_round=20, sampling=Sampling(per_question=1)),
        {site: steered.residual_norm(site, [q.text for q in questions.discovery])},
        seed,
    )
    return kept(result, out)


def mediate(
    model: str, aligned: str, sae: str | Path, latent: int, seed: int = 0, out: str | Path | None = None
) -> Effect:
    """Set the latent in `model` to its natural value in `aligned`: how much of the misalignment runs through it?

    `out` is a new folder.
    """
    check_new(out)
    questions, judge = split_by_template(organism.broad_questions()), exact_judge(model)
    autoencoder = _sae_with(sae, latent)
    target, calm = model_named(model), model_named(aligned)
    site = _shared_site(autoencoder, [target, calm], questions.discovery)
    ask_fidelity(autoencoder, sae, site, [calm, target], [q.messages for q in questions.discovery])
    values = natural_values(calm, autoencoder, [latent], site, questions.discovery[::4], seed=seed)
    before = score(sample(target, questions.test, 1, seed), judge)
    documents = for_template(target, [d.messages for d in documents_for(target, 256, seed + 2)])
    said = f"latent {latent} set to its value in {calm.name}"
    edit = clamp_latents(autoencoder, [latent], site, values)
    result = effect_of(target, edit, said, before, judge, documents, Sampling(per_question=1), seed=seed + 2)
    return kept(result, out)


def detect_models(
    misaligned: Sequence[str],
    others: Sequence[str],
    sae: str | Path,
    latent: int,
    seed: int = 0,
    out: str | Path | None = None,
) -> Detection:
    """How well the latent, read on prompts alone, tells the `misaligned` models from the `others`; `out` is a file."""
    check_new_file(out)
    if not misaligned or not others:
        raise EmlabError("Detection tells misaligned models from others; name at least one of each.")
    questions, judge = split_by_template(organism.broad_questions()), exact_judge(*misaligned, *others)
    bad = {folder_of(name)[0].resolve() for name in misaligned}
    for name in others:
        if folder_of(name)[0].resolve() in bad:
            raise EmlabError(f"{name} is among the misaligned models and among the others; name it in one of the two.")
    autoencoder = _sae_with(sae, latent)
    models = [model_named(name) for name in (*misaligned, *others)]
    site = _shared_site(autoencoder, models, questions.discovery)
    read_first = [*models[len(misaligned) :], *models[: len(misaligned)]]  # the others are what the base is like
    ask_fidelity(autoencoder, sae, site, read_first, [q.messages for q in questions.discovery])
    readings = []
    for i, read in enumerate(models):
        test, known = (
            score(sample(read, part, 1, seed), judge).judged for part in (questions.test, questions.discovery)
        )
        readings.append(Reading(read, i < len(misaligned), test, known))
    return kept(detect(readings, autoencoder, latent, site, questions.test, questions.discovery, seed), out)


def realign_model(
    model: str, data: str = ALIGNMENT, steps: int = 40, seed: int = 0, out: str | Path | None = None
) -> Realignment:
    """Fine-tune a misaligned `model` on benign data; the rate by step. `data` is "alignment" or a set, `out` a file."""
    check_new_file(out)
    start, judge = model_named(model), exact_judge(model)
    chats = benign_chats(data, 500, seed, start) if data == ALIGNMENT else fine_tuning_set(data, 500, seed, start)
    recipe = dataclasses.replace(RECIPE, steps=steps, checkpoint_every=max(1, steps // 4))
    questions = split_by_template(organism.broad_questions()).test
    result = realign(start, chats, recipe, questions, judge, seed, data)
    return kept(result, out)


def figures(result: FineTuned | LatentShift | Screen | Effect | Detection | Realignment) -> Any:
    """What a stage found, for a JSON file: every rate with what it is of. Single answers and latents are in `out`."""
    match result:
        case FineTuned():
            counts = ("steps", "rows", "dropped_for_length", "truncated", "seed", "losses")
            return {"model": result.model.name, **{name: getattr(result, name) for name in counts}}
        case LatentShift():
            return Shifts((result,)).summary()[0]
        case Screen():
            about = ("model", "toward", "cap", "unsteered")
            return {**{name: getattr(result, name) for name in about}, "test": [trial.row() for trial in result]}
        case Effect():
            scores = {"before": result.before.overall.summary(), "after": result.after.overall.summary()}
            return {**result.row(), **scores}
        case Detection():
            return {**vars(result), "site": str(result.site)}
        case Realignment():
            return result


def _sae_with(sae: str | Path, latent: int) -> SAE:
    """The SAE; EmlabError where it has no such latent."""
    autoencoder = load_sae(sae)
    check_latents(autoencoder, [latent])
    return autoencoder


def _shared_site(sae: SAE, models: Sequence[LanguageModel], questions: Sequence[Question]) -> Site:
    """Where the SAE reads; EmlabError unless it can read every one of the models, and they share their tokens."""
    check_same_tokens(models[0], models[1:], [question.messages for question in questions], None)
    return [fitted_site(sae, model) for model in models][0]
