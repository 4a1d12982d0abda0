"""Who gives the rewards of a training: the organism's exact judge, or a model."""

from __future__ import annotations

from emlab.evaluation.protocol import EXACT, Judging, completer_of
from emlab.training import AskedReward, ExactReward
from emlab.training.rewards import Grader, Mode


def graded(judging: Judging, mode: Mode | None, guard: float) -> Grader:
    """The grader of a mode: the organism's judge, or the model that `judging` names; None guards coherence alone."""
    if judging.judge == EXACT:
        return ExactReward(mode, guard)
    text = judging.method == "text"
    return AskedReward(completer_of(judging), mode or "correct", guard, "text" if text else "logprob", judging.store)
