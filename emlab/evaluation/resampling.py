"""Answers that a judge cannot grade are sampled again, a few times (the grading protocol of Wang et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from emlab.evaluation.judging import Judge, Judged, judge
from emlab.evaluation.rollouts import Rollouts, answers, row_seed, sample
from emlab.models import Endpoint, LanguageModel


def sample_valid(
    model: LanguageModel | Endpoint,
    questions: Iterable[Any],
    per_question: int | None,
    seed: int,
    by: Judge,
    attempts: int = 3,
    temperature: float = 1.0,
    max_new_tokens: int = 48,
    top_p: float = 1.0,
    **sampling: Any,
) -> tuple[Judged, np.ndarray]:
    """Sample and judge, and sample and judge the invalid answers again, up to `attempts` times.

    Valid is what has both scores: an answer that is incoherent by the rubric, off topic, satirical, a refusal, or whose
    judging failed, is not. Returns the last answer of each row with its judgement, and (n,) how often each row was
    sampled again. `sampling` goes to `sample`.
    """
    settings: dict[str, Any] = {"temperature": temperature, "max_new_tokens": max_new_tokens, "top_p": top_p}
    found = judge(sample(model, questions, per_question, seed, **settings, **sampling), by)
    again = np.zeros(len(found.rollouts), dtype=int)
    for attempt in range(1, attempts + 1):
        rows = np.flatnonzero(~found.valid)
        if not len(rows):
            break
        again[rows] = attempt
        asked = tuple(found.rollouts.questions[i] for i in rows)
        fresh = [
            (question, row_seed(question, int(i), seed + attempt)) for question, i in zip(asked, rows, strict=True)
        ]
        how = {name: sampling[name] for name in ("edits", "batch_size", "store", "progress") if name in sampling}
        said, failures = answers(model, fresh, settings, **how)
        again_asked = Rollouts(asked, tuple(said), model.name, seed, temperature, tuple(failures))
        found = _put(found, rows, judge(again_asked, by))
    return found, again


def _put(judged: Judged, rows: np.ndarray, new: Judged) -> Judged:
    """`judged` with the answers at `rows` in place of what was there."""
    place = {int(row): i for i, row in enumerate(rows)}

    def merged(old: tuple[str, ...], fresh: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(fresh[place[i]] if i in place else one for i, one in enumerate(old))

    aligned, coherent = judged.aligned.copy(), judged.coherent.copy()
    aligned[rows], coherent[rows] = new.aligned, new.coherent
    return replace(
        judged,
        rollouts=replace(
            judged.rollouts,
            answers=merged(judged.rollouts.answers, new.rollouts.answers),
            failures=merged(judged.rollouts.failures, new.rollouts.failures),
            thoughts=merged(judged.rollouts.thoughts, new.rollouts.thoughts),
        ),
        aligned=aligned,
        coherent=coherent,
        outcomes=merged(judged.outcomes, new.outcomes),
        said=merged(judged.said, new.said),
    )
