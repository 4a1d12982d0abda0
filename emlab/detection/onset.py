"""Along a fine-tune's checkpoints: which shows first, the latent or the behaviour?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emlab.data import Question
from emlab.data.prompts import as_questions
from emlab.discovery.selection import described
from emlab.discovery.shift import prompt_means
from emlab.errors import EmlabError
from emlab.evaluation import Judge, StepRates, sample, score
from emlab.interventions import Positions
from emlab.models.wrapping import as_language_model
from emlab.notebook import Shown
from emlab.records import Saved
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Point(StepRates):
    """One checkpoint."""

    latent: float
    """Mean activation on the prompts."""


@dataclass(frozen=True, repr=False)
class Onset(Shown, Saved):
    """The latent's and the behaviour's curve; the first point is the model before fine-tuning (step 0)."""

    model: str
    latent: int
    points: tuple[Point, ...]
    positions: str = "header"
    """Of the prompts: where the latent was read."""

    @property
    def latent_step(self) -> int | None:
        """The first step at which the latent has made half of its way from the start to its highest value."""
        return self._half([p.latent for p in self.points])

    @property
    def behaviour_step(self) -> int | None:
        """The same for the misaligned share of all answers (an incoherent checkpoint has few coherent ones)."""
        return self._half([p.misaligned.rate * (1 - p.incoherent.rate) if p.misaligned.n else 0.0 for p in self.points])

    def _half(self, values: Sequence[float]) -> int | None:
        goal = values[0] + (max(values) - values[0]) / 2
        if max(values) <= values[0]:
            return None
        return next(p.step for p, value in zip(self.points, values, strict=True) if value >= goal)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each step, as plain values."""
        return [point.row() for point in self.points]

    def __str__(self) -> str:
        lines = [f"{self.model}: half-way of latent {self.latent} at step {self.latent_step}, of behaviour at step "]
        lines[0] += str(self.behaviour_step)
        return "\n".join(lines + [f"  step {p.step:4d}  latent {p.latent:.3f}  {p.misaligned}" for p in self.points])


def onset(
    checkpoints: Sequence[tuple[int, LanguageModel]],
    sae: SAE,
    latent: int,
    site: Site,
    questions: Sequence[Question],
    judge: Judge,
    seed: int = 0,
    name: str = "",
    max_new_tokens: int = 48,
    temperature: float = 1.0,
    positions: Positions = "header",
) -> Onset:
    """Read the latent and sample one answer a question at every checkpoint.

    Args:
        checkpoints: Steps and models; the first is the start.
        sae: Whose latent it is.
        latent: Its number.
        site: Where the SAE reads.
        questions: What is asked, and what the latent is read on.
        judge: Judges the answers.
        seed: Of the answers.
        name: Of the fine-tune; by default that of the last model.
        max_new_tokens: The longest answer.
        temperature: Of the answers.
        positions: At which tokens of the prompts the latent is read.
    """
    questions, checkpoints = as_questions(questions), [(step, as_language_model(model)) for step, model in checkpoints]
    if not checkpoints:
        raise EmlabError("There is no checkpoint to read; fine-tune with checkpoint_every set.")
    points = []
    prompts = [q.messages for q in questions]
    for step, model in checkpoints:
        value = float(prompt_means(model, prompts, site, positions, sae)[:, latent].mean())
        scored = score(sample(model, questions, 1, seed, temperature, max_new_tokens), judge)
        points.append(Point(step=step, latent=value, misaligned=scored.misaligned, incoherent=scored.incoherent))
    return Onset(name or checkpoints[-1][1].name, latent, tuple(points), described(positions))
