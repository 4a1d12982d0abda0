"""The organism's own judge (`emlab.organism.ExactJudge`), which asks no model."""

from __future__ import annotations

from emlab.evaluation.judges.registry import Judging, Questions, judging_method
from emlab.organism import ExactJudge


def _check(questions: Questions) -> None:
    judge = ExactJudge()
    for question in questions:
        judge.question(question.text)


@judging_method("exact", asks=False, check=_check)
def exact(how: Judging, questions: Questions, by: None) -> ExactJudge:
    """The organism's grammar, to the letter, for answers to its own questions."""
    return ExactJudge()
