"""What a persona-features run found: the results of its stages, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emlab.discovery import LatentShift, Screen, Trial
from emlab.errors import EmlabError
from emlab.evaluation import Score
from emlab.saes import Fidelity
from emlab.training import FineTuned

MEAN_DIFFERENCE, RANDOM = "mean difference", "random"
"""The name of the mean-difference direction, and how the name of a random one begins."""


@dataclass(frozen=True, eq=False)
class Findings:
    """The frozen results that a report and a summary are written from."""

    finetuned: Mapping[str, FineTuned]
    """By name: first the narrow sets, then the controls."""
    scores: tuple[Score, ...]
    """On the test questions: the aligned model first, then the fine-tunes in order."""
    fidelity: Fidelity
    """Of the SAE on the base model, on documents it was not trained on."""
    fidelity_elsewhere: Mapping[str, Fidelity]
    """The same documents read by the aligned model and by each fine-tune."""
    ranked: LatentShift
    """The mean shift over the narrow sets, by which latents are ranked."""
    shifts: tuple[LatentShift, ...]
    """From the aligned model to each fine-tune, controls last."""
    latent: int
    """The persona latent: of the candidates, the one whose direction misaligns most on the discovery questions."""
    plus: Screen
    """Directions added to the aligned model."""
    minus: Screen
    """Directions subtracted from a narrowly fine-tuned one."""

    def __post_init__(self) -> None:
        for screen in (self.plus, self.minus):
            for name in (self.name, MEAN_DIFFERENCE):
                screen.tested(name)  # says which direction is missing
        for name in (self.plus.model, self.minus.model):
            self.score(name)

    @property
    def name(self) -> str:
        """The persona latent's direction as screens call it."""
        return f"latent {self.latent}"

    def score(self, model: str) -> Score:
        """The score of a model on the test questions, without any edit."""
        for score in self.scores:
            if score.model == model:
                return score
        raise EmlabError(f"there is no score of {model!r}: there are {', '.join(s.model for s in self.scores)}.")

    @staticmethod
    def random(screen: Screen) -> list[Trial]:
        """The test trials of a screen's random directions."""
        return [trial for trial in screen if trial.arm.name.startswith(RANDOM)]
