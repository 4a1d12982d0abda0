"""What a persona-features run found: the results of its stages, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emlab.detection import Auroc, Detection, Onset
from emlab.discovery import Context, Effect, LatentShift, Screen, Verdict
from emlab.errors import EmlabError
from emlab.evaluation import Score
from emlab.mitigation import Realignment
from emlab.saes import Fidelity, neuronpedia_page
from emlab.sites import Site
from emlab.training import FineTuned

MEAN_DIFFERENCE = "mean difference"
"""The name of the mean-difference direction."""


@dataclass(frozen=True)
class ModelFidelity:
    """How well an SAE describes one model at one site."""

    site: Site
    model: str
    fidelity: Fidelity
    loss_recovered: float | None
    """Share of the loss at stake that the reconstruction keeps; None where nothing is at stake. See `emlab.saes`."""
    ranked: Fidelity | None = None
    """On the tokens where latents are ranked alone."""


@dataclass(frozen=True)
class Planted:
    """How well the latent at the assistant's header tells malicious documents from others, on fresh ones."""

    all: Auroc
    knowable: Auroc
    """Of the documents whose persona can be known there: a card or an earlier turn tells it."""


@dataclass(frozen=True, eq=False)
class Persona:
    """The latent that misaligns most of those that rise most, and everything that was measured of it."""

    latent: int
    site: Site
    name: str
    """What screens call its direction."""
    ranked: LatentShift
    """The mean shift over the narrow sets at its site, by which latents are ranked."""
    shifts: tuple[LatentShift, ...]
    """From the aligned model to each fine-tune at its site, in the order of the scores."""
    planted: Planted | None
    """None where nobody knows who wrote the texts."""
    cosine: float
    """Between the latent's direction and the mean difference at its site."""
    plus: Screen
    """Directions added to the aligned model."""
    minus: Screen
    """Directions subtracted from a narrowly fine-tuned one."""
    effects: Mapping[str, Effect]
    """Edits at test time, by a short name such as unseen_minus, ablation, mediation."""
    detection: Detection
    onset: Onset | None
    """None where the fine-tune kept no checkpoints."""
    contexts: tuple[Context, ...]
    neuronpedia: str | None = None
    """Where Neuronpedia shows the SAE's latents, as SAELens' list of published SAEs names the place."""

    def page(self, latent: int) -> str | None:
        """A latent's page on Neuronpedia, where there is one."""
        return None if self.neuronpedia is None else neuronpedia_page(self.neuronpedia, latent)

    def __post_init__(self) -> None:
        for screen in (self.plus, self.minus):
            for name in (self.name, MEAN_DIFFERENCE):
                screen.tested(name)  # says which direction is missing


@dataclass(frozen=True, eq=False)
class Findings:
    """The frozen results that a report and a summary are written from."""

    finetuned: Mapping[str, FineTuned]
    """By name."""
    kinds: Mapping[str, str]
    """Of each fine-tune: narrow, unseen (a narrow set kept from discovery) or control."""
    scores: tuple[Score, ...]
    """On the test questions: the aligned model first, then the fine-tunes in order."""
    fidelity: tuple[ModelFidelity, ...]
    """Of the SAE at each site on each model, on documents it was not trained on."""
    persona: Persona | None
    """None where latents were not ranked, since the SAE describes some model too badly at every site."""
    realignment: Realignment
    verdict: Verdict

    def score(self, model: str) -> Score:
        """The score of a model on the test questions, without any edit."""
        for score in self.scores:
            if score.model == model:
                return score
        raise EmlabError(f"there is no score of {model!r}: there are {', '.join(s.model for s in self.scores)}.")

    def of_kind(self, kind: str) -> list[str]:
        """The fine-tunes of one kind."""
        return [name for name, its in self.kinds.items() if its == kind]
