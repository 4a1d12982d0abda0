"""What every stage of a persona-features run works with: models, questions, judge and texts."""

from __future__ import annotations

from collections.abc import Sequence

from emlab.data import Question
from emlab.discovery import spread
from emlab.evaluation import Score, score
from emlab.experiments.material.judging import judge_for
from emlab.experiments.material.questions import halves_of
from emlab.experiments.persona_features.config import Config
from emlab.experiments.persona_features.texts import texts_of
from emlab.models import LanguageModel
from emlab.runs import Run


class Resources:
    """Of one run; its questions are divided into those to choose by and those to report on."""

    def __init__(self, config: Config, here: Run, aligned: LanguageModel, base: LanguageModel) -> None:
        self.config, self.here, self.aligned, self.base = config, here, aligned, base
        self.seed = config.reported(config.seed)
        """Of all that is reported; what chooses takes the config's."""
        questions, whole = halves_of(config.question_set, config.seed, config.sealed, config.variants)
        self.discovery, self.test = questions.discovery, spread(questions.test, config.questions)
        self.prompts = [question.messages for question in questions.discovery]
        self.judge = judge_for(here.caution, config.judging, whole, config.model)
        self.texts = texts_of(config, base, aligned)
        self.documents = self.texts.held_out

    def ask(self, model: LanguageModel, questions: Sequence[Question], per_question: int | None = None) -> Score:
        """Answers sampled as the config says, judged."""
        rollouts = self.config.answers.sample(model, questions, self.seed, per_question=per_question)
        return score(rollouts, self.judge)
