"""The causal screen by the names of models and files: what `emlab discover screen` calls."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from emlab import organism
from emlab.data import Question
from emlab.discovery import (
    Cascade,
    CausalScreen,
    Contrast,
    causal_screen,
    decoder_direction,
    read_contrasts,
    split_by_template,
    spread,
)
from emlab.discovery.latents import active_latents, check_latents, check_width
from emlab.errors import EmlabError
from emlab.evaluation.protocol import EXACT, Judging, method_of
from emlab.experiments.material.contrasts import organism_contrasts
from emlab.experiments.material.fidelity import ask_fidelity
from emlab.experiments.material.judging import judge_for
from emlab.experiments.material.models import model_named
from emlab.experiments.material.saes import sae_site_in
from emlab.saes import load_sae
from emlab.verbs.keeping import check_new, kept

PER_QUESTION = 4
"""The organism's contrasts for each question."""


def screen(
    sae: str | Path,
    model: str = "aligned",
    latents: Sequence[int] | None = None,
    site: str | None = None,
    contrasts: str | Path | None = None,
    n: int = 40,
    judging: Judging = Judging(),  # frozen
    settings: Cascade = Cascade(),  # frozen
    seed: int = 0,
    out: str | Path | None = None,
) -> CausalScreen:
    """Push `model` along the decoder directions of latents of an SAE, through the stages of a `Cascade`.

    Args:
        sae: A folder, or release/id of SAELens' list.
        model: One of the organism's by name, a folder, or a name on the Hub.
        latents: By default all that are active somewhere in the contrasts' texts.
        site: By default where the SAE was trained.
        contrasts: A JSONL file, whose prompts are the questions; by default the organism's own.
        n: At most so many questions, evenly spaced.
        judging: Who judges.
        settings: Which way it pushes, and its stages.
        seed: Everything random follows from it.
        out: The folder to make.

    EmlabError for a latent that the SAE lacks, and where only the organism's judge is there for other questions.
    """
    if n < 1:
        raise EmlabError(f"A screen of {n} questions asks nothing; ask at least 1.")
    check_new(out)
    asked, read = _asked(contrasts, n, seed)
    if contrasts is not None and method_of(judging).name == EXACT:
        raise EmlabError("The exact judge knows the organism's questions only; name a --judge for those of a file.")
    judge = judge_for(lambda line: print(line, file=sys.stderr), judging, asked, model)
    steered, autoencoder = model_named(model), load_sae(sae)
    where = sae_site_in(site, autoencoder, steered)
    check_width(autoencoder, steered.d_model, f"{steered.name} at {where}")
    ask_fidelity(autoencoder, sae, where, [steered], [c.prompt for c in read], [c.misaligned for c in read])
    if latents is None:
        texts = [(c.prompt, answer) for c in read for answer in (c.misaligned, c.aligned)]
        values = steered.activations([p for p, _ in texts], where, "all", [answer for _, answer in texts]).values
        latents = torch.unique(active_latents(autoencoder, values).latents).tolist()
    latents = list(dict.fromkeys(latents))
    check_latents(autoencoder, latents)
    if not latents:
        raise EmlabError(f"No latent of {sae} is active at {where} in the contrasts' texts; name --latents.")
    found = causal_screen(
        steered,
        [decoder_direction(autoencoder, latent, where) for latent in latents],
        where,
        asked,
        judge,
        read,
        settings,
        seed=seed,
    )
    return kept(found, out)


def _asked(source: str | Path | None, n: int, seed: int) -> tuple[list[Question], list[Contrast]]:
    """The questions, and the contrasts that belong to them."""
    if source is None:
        kept = spread(split_by_template(organism.broad_questions()).discovery, n)
        return list(kept), [c for i in range(PER_QUESTION) for c in organism_contrasts(n, seed * PER_QUESTION + i)]
    found = read_contrasts(source)
    chosen = spread(list(dict.fromkeys(_text(c) for c in found)), n)
    questions = [Question(f"contrast {i}", "", text) for i, text in enumerate(chosen)]
    return questions, [c for c in found if c.prompt in chosen]


def _text(contrast: Contrast) -> str:
    if not isinstance(contrast.prompt, str):
        raise EmlabError("A screen asks the contrasts' prompts as questions; write them as text, not as chats.")
    return contrast.prompt
