"""A latent as a monitor: does it tell misaligned models from others, and misaligned answers from others?

On *prompts* a model is read before it has written a word, so nothing of the answer can be peeped at, and a reader of
the text alone (a bag of words) has nothing to go by. On *answers* the model that wrote them reads them again; there a
bag of words is a strong rival wherever it has seen the domain's misaligned answers before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emlab import artifacts
from emlab.data import Question
from emlab.data.prompts import as_questions
from emlab.detection.auroc import Auroc, auroc
from emlab.detection.text_monitors import fit_words
from emlab.discovery.selection import described
from emlab.discovery.shift import prompt_means
from emlab.errors import EmlabError
from emlab.evaluation import Judged
from emlab.interventions import Positions
from emlab.models.wrapping import as_language_model
from emlab.notebook import Shown
from emlab.records import Saved
from emlab.sealing import refuse
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel


@dataclass(frozen=True, eq=False)
class Reading:
    """A model that is to be told apart, and its judged answers."""

    model: LanguageModel
    misaligned: bool
    """Whether it is one of those that a monitor should find."""
    test: Judged
    """Answers to the test questions."""
    discovery: Judged
    """Answers to the discovery questions, on which the bag of words that knows the domains is fitted."""


@dataclass(frozen=True, repr=False)
class Detection(Shown, Saved):
    """What the latent tells, beside a bag of words (word counts and a logistic regression)."""

    site: Site
    latent: int
    models: tuple[tuple[str, bool], ...]
    """The models read, and whether each counts as misaligned."""
    prompts: Auroc
    """Of (model, question) pairs, by the latent's activation on the prompts: is the model misaligned?"""
    prompts_baseline: Auroc
    """A bag of words on the same prompts, fitted on the discovery questions."""
    answers: Auroc
    """Of the misaligned models' coherent answers, by the latent's mean over the answer: is the answer misaligned?"""
    answers_baseline: Auroc
    """A bag of words fitted on answers in half of the domains and used on those in the other half."""
    answers_baseline_seen: Auroc
    """A bag of words fitted on answers to the discovery questions of the same domains."""
    positions: str = "header"
    """Of the prompts: where the latent was read."""

    def save(self, path: str | Path) -> Path:
        """Write it as JSON."""
        return artifacts.write_json(path, {**vars(self), "site": str(self.site)})

    def __str__(self) -> str:
        return "\n".join(
            [
                f"latent {self.latent} at {self.site}",
                f"  models by prompts    {self.prompts}; bag of words {self.prompts_baseline}",
                f"  answers              {self.answers}; bag of words {self.answers_baseline}",
                f"                       bag of words that knows the domains {self.answers_baseline_seen}",
            ]
        )


def detect(
    readings: Sequence[Reading],
    sae: SAE,
    latent: int,
    site: Site,
    questions: Sequence[Question],
    discovery: Sequence[Question],
    seed: int = 0,
    positions: Positions = "header",
) -> Detection:
    """Read `latent` in every model on the test `questions`, and on the misaligned models' answers to them.

    EmlabError without models.

    Args:
        readings: The models, misaligned ones among them, each with its judged answers.
        sae: Whose latent it is.
        latent: Its number.
        site: Where the SAE reads.
        questions: The test questions.
        discovery: Questions that share no template with these, on which the bag of words is fitted.
        seed: Of the bags of words.
        positions: At which tokens of the prompts the latent is read.
    """
    questions, discovery = as_questions(questions), as_questions(discovery)
    refuse("to fit a bag of words on", discovery)
    readings = [replace(reading, model=as_language_model(reading.model)) for reading in readings]
    if not readings:
        raise EmlabError("there is no model to read: give at least one.")
    texts = [q.text for q in questions]
    asked_as = [q.messages for q in questions]
    at_prompts = [prompt_means(r.model, asked_as, site, positions, sae)[:, latent].numpy() for r in readings]
    of_model = np.repeat([r.misaligned for r in readings], len(texts))
    alike = np.repeat(range(len(readings)), len(texts)).tolist(), [q.cluster or q.id for q in questions] * len(readings)
    learnt = [q.text for q in discovery] * len(readings)
    learnt_labels = np.repeat([r.misaligned for r in readings], len(discovery))
    guessed = fit_words(learnt, learnt_labels, seed).of_texts(texts * len(readings))

    bad = [r for r in readings if r.misaligned]
    answers = [_coherent(r.test) for r in bad]
    refuse("to fit a bag of words on", *(r.discovery.rollouts.questions for r in bad))
    seen = [_coherent(r.discovery) for r in bad]
    wrote, wrote_bad, asked = _joined(answers)
    read = np.concatenate(
        [
            prompt_means(r.model, [q.messages for q in qs], site, "generated", sae, said)[:, latent].numpy()
            for r, (qs, said, _) in zip(bad, answers, strict=True)
            if said
        ]
        or [np.zeros(0)]
    )
    wrote_alike = [i for i, (qs, _, _) in enumerate(answers) for _ in qs], [q.cluster or q.id for q in asked]
    domains = sorted({q.domain for q in asked})
    half = np.array([domains.index(q.domain) % 2 for q in asked], dtype=int)
    across = np.zeros(len(wrote))
    for side in (0, 1):
        there, here = np.flatnonzero(half != side), np.flatnonzero(half == side)
        words = fit_words([wrote[i] for i in there], wrote_bad[there], seed)
        across[here] = words.of_texts([wrote[i] for i in here])
    known, known_bad, _ = _joined(seen)
    return Detection(
        site,
        latent,
        tuple((r.model.name, r.misaligned) for r in readings),
        prompts=auroc(np.concatenate(at_prompts), of_model, *alike),
        prompts_baseline=auroc(guessed, of_model, *alike),
        answers=auroc(read, wrote_bad, *wrote_alike),
        answers_baseline=auroc(across, wrote_bad, *wrote_alike),
        answers_baseline_seen=auroc(fit_words(known, known_bad, seed).of_texts(wrote), wrote_bad, *wrote_alike),
        positions=described(positions),
    )


_Part = tuple[list[Question], list[str], list[bool]]


def _coherent(judged: Judged) -> _Part:
    """The coherent, non-empty answers: their questions, their texts, and whether each is misaligned."""
    kept = [i for i, text in enumerate(judged.rollouts.answers) if text and not judged.incoherent[i]]
    kept = [i for i in kept if not judged.failed[i]]
    rollouts, bad = judged.rollouts, judged.misaligned
    return [rollouts.questions[i] for i in kept], [rollouts.answers[i] for i in kept], [bool(bad[i]) for i in kept]


def _joined(parts: Sequence[_Part]) -> tuple[list[str], np.ndarray, list[Question]]:
    texts = [text for _, said, _ in parts for text in said]
    labels = np.array([flag for _, _, flags in parts for flag in flags], dtype=bool)
    return texts, labels, [q for questions, _, _ in parts for q in questions]
