"""A judge is there before work begins: what it cannot judge, or cannot be asked, is said first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from emlab import organism
from emlab.data import Question, QuestionSet
from emlab.evaluation.judging import Judge
from emlab.evaluation.probing import probe
from emlab.evaluation.protocol import EXACT, Judging, judge_of, method_of
from emlab.experiments.material.models import folder_of
from emlab.models.loading import load_tokenizer

NAME_A_JUDGE = (
    "Name a language model as the judge (judging.judge or --judge: a model's folder, or a name with judging.url or "
    "--judge-url)."
)
RUN = "Use `emlab run experiments/persona_features.yaml` with model=, question_set= and judging.judge= for it."


def judge_for(
    say: Callable[[str], object], judging: Judging, questions: Sequence[Question] | QuestionSet, model: str
) -> Judge:
    """The judge of the answers of `model` (its name in a config) and its fine-tunes, asked once whether it is there.

    `say` is given what must be said before anything is sampled, and at the head of a report.
    """
    judge = judge_of(judging, questions)
    for line in foreign_answers(judging, model):
        say(line)
    probe(judge)
    return judge


def exact_judge(*models: str) -> organism.ExactJudge:
    """The organism's judge, for a step that has no other; models that it does not know are named on the terminal."""
    for line in dict.fromkeys(line for model in models for line in foreign_answers(Judging(), model, mend=RUN)):
        print(line, file=sys.stderr)
    return organism.ExactJudge()


def foreign_answers(judging: Judging, model: str, url: str | None = None, mend: str = NAME_A_JUDGE) -> list[str]:
    """What must be said before such a run, and at the head of its report; nothing of the organism and its fine-tunes.

    These are known by name, or by their tokens. `url` is the server of a model that is behind one.
    """
    if method_of(judging).name != EXACT or (_served_own(model) if url is not None else _own(model)):
        return []
    return [
        f"CAUTION: the exact judge knows the organism's sentences alone, and {model} is no model of the organism's: "
        f"answers in any other words count as incoherent, so that nothing can be found out of them. {mend}"
    ]


def _served_own(model: str) -> bool:
    return model.rsplit("/", 1)[-1] in organism.checkpoint_names()


def _own(model: str) -> bool:
    folder, own = folder_of(model)
    return own or organism.world_read_by(load_tokenizer(folder, chat_template="plain")) is not None
