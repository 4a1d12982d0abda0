"""How answers are sampled, as a config says it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from emlab.data.prompts import Prompt
from emlab.evaluation.rollouts import Rollouts, sample
from emlab.interventions import Edit
from emlab.models import Endpoint, LanguageModel


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled."""

    per_question: int = 3
    """Answers to each question."""
    temperature: float = 1.0
    max_new_tokens: int = 48
    batch_size: int = 512

    def sample(
        self,
        model: LanguageModel | Endpoint,
        questions: Iterable[Any],
        seed: int,
        edits: Sequence[Edit] = (),
        per_question: int | None = None,
    ) -> Rollouts:
        """As `emlab.evaluation.sample`, with these settings.

        Args:
            model: Who answers.
            questions: What is asked, as `sample` takes it.
            seed: Everything random follows from it.
            edits: In force while the model answers.
            per_question: Answers to each question, in place of what is said here.
        """
        count = per_question or self.per_question
        return sample(model, questions, count, seed, self.temperature, self.max_new_tokens, edits, self.batch_size)

    def generate(
        self, model: LanguageModel, prompts: Sequence[Prompt], seed: int | Sequence[int], edits: Sequence[Edit] = ()
    ) -> list[str]:
        """One answer a prompt, as `LanguageModel.generate` gives it, with these settings.

        Args:
            model: Who answers.
            prompts: Texts or chats.
            seed: Everything random follows from it; or one for each prompt.
            edits: In force while the model answers.
        """
        return model.generate(prompts, self.max_new_tokens, self.temperature, seed, self.batch_size, edits)
