"""Re-alignment: a misaligned model fine-tuned for a few more steps, on benign data.

After Wang et al. 2025 (arXiv:2506.19823), who found that a few hundred benign examples undo emergent misalignment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emlab.data import Question
from emlab.data.prompts import as_questions
from emlab.evaluation import Judge, StepRates, sample, score
from emlab.models.wrapping import as_language_model
from emlab.notebook import Shown
from emlab.records import Saved
from emlab.training import Recipe, finetune

if TYPE_CHECKING:
    from emlab.models import LanguageModel


@dataclass(frozen=True, repr=False)
class Realignment(Shown, Saved):
    """How a misaligned model answers along its re-alignment; the first point is before it (step 0)."""

    model: str
    data: str
    """What it was re-aligned on."""
    points: tuple[StepRates, ...]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each step, as plain values."""
        return [point.row() for point in self.points]

    def __str__(self) -> str:
        lines = [f"{self.model} re-aligned on {self.data}"]
        return "\n".join(lines + [f"  step {p.step:4d}  misaligned {p.misaligned}" for p in self.points])


def realign(
    model: LanguageModel,
    chats: Iterable[Any],
    recipe: Recipe,
    questions: Sequence[Question],
    judge: Judge,
    seed: int = 0,
    data: str = "benign data",
    per_question: int = 1,
    max_new_tokens: int = 48,
    progress: bool = True,
    temperature: float = 1.0,
) -> Realignment:
    """Fine-tune `model` on benign chats and ask before, at every kept checkpoint, and at the end.

    Args:
        model: The misaligned model; it stays as it is.
        chats: Benign examples: whatever `Dataset.of` takes.
        recipe: How it is trained; its `checkpoint_every` says which steps are asked at.
        questions: What is asked.
        judge: Who judges the answers.
        seed: Of training and sampling.
        data: What to call the chats in tables.
        per_question: Answers to each question.
        max_new_tokens: The longest answer.
        progress: Whether to show a bar.
        temperature: Of the answers.
    """
    model, questions = as_language_model(model), as_questions(questions)
    tuned = finetune(model, chats, recipe, seed, progress=progress, name=f"{model.name} re-aligned", defer=True)
    stages = {0: model, **dict(tuned.checkpoints), tuned.steps: tuned.model}
    points = []
    for step, at in stages.items():
        scored = score(sample(at, questions, per_question, seed, temperature, max_new_tokens), judge)
        points.append(StepRates(step=step, misaligned=scored.misaligned, incoherent=scored.incoherent))
    return Realignment(model.name, data, tuple(points))
