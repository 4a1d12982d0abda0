"""Judged answers of several models to the same questions, taken together: all seeds of one training, for example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from emlab.errors import EmlabError
from emlab.evaluation.judging import Judged


def pooled(judged: Sequence[Judged], name: str, trainings: Sequence[str] = ()) -> Judged:
    """All answers as those of one model, called `name`; rates then also vary by training.

    Args:
        judged: Of the models.
        name: Of all together.
        trainings: What names the training of each; by default its place. Those of one name vary together, such as the
            fine-tunes of one organism.

    EmlabError where there are none, or where different judges or thresholds judged them.
    """
    if not judged:
        raise EmlabError("There are no judged answers to pool; give some.")
    first = judged[0]
    if len({(one.judge, one.thresholds) for one in judged}) > 1:
        raise EmlabError(f"The answers to be pooled as {name} were judged differently; judge all alike.")
    names = trainings or [str(i) for i in range(len(judged))]
    rollouts = replace(
        first.rollouts,
        questions=tuple(q for one in judged for q in one.rollouts.questions),
        answers=tuple(a for one in judged for a in one.rollouts.answers),
        failures=tuple(f for one in judged for f in one.rollouts.failures),
        thoughts=tuple(t for one in judged for t in one.rollouts.thoughts),
        trainings=tuple(t for t, one in zip(names, judged, strict=True) for _ in one.rollouts.answers),
        model=name,
    )
    return replace(
        first,
        rollouts=rollouts,
        aligned=np.concatenate([one.aligned for one in judged]),
        coherent=np.concatenate([one.coherent for one in judged]),
        outcomes=tuple(o for one in judged for o in one.outcomes),
        said=tuple(s for one in judged for s in one.said),
    )
