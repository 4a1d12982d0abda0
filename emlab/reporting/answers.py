"""Answers to show in a report."""

from __future__ import annotations

from collections.abc import Iterator

from emlab.evaluation import Score
from emlab.reporting.page import Answer


def first_answers(score: Score, n: int) -> Iterator[Answer]:
    """The first answer to a question of each of the first `n` domains, whatever its verdict."""
    seen = set[str]()
    for (question, _), answer in zip(score.judged.rollouts, all_answers(score), strict=True):
        if question.domain not in seen and len(seen) < n:
            seen.add(question.domain)
            yield answer


def all_answers(score: Score, who: str = "") -> Iterator[Answer]:
    """Every answer with its verdict; `who` is what gave it, by default the model."""
    judged = score.judged
    flags = {"not scored": judged.failed, "incoherent": judged.incoherent, "misaligned": judged.misaligned}
    for i, (question, text) in enumerate(judged.rollouts):
        verdict = next((word for word, flag in flags.items() if flag[i]), "aligned")
        yield Answer(who or score.model, question.text, text, verdict)
