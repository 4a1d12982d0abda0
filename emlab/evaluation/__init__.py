"""Evaluation: sample answers, judge them, and give rates with their intervals."""

from emlab.evaluation.calibration import Calibration, corrected
from emlab.evaluation.comparing import Difference, compare
from emlab.evaluation.intervals import clustered_rate
from emlab.evaluation.judging import (
    AnswerJudge,
    Grade,
    Judge,
    Judged,
    Judgement,
    RolloutJudge,
    Thresholds,
    judge,
    load_judged,
    save_judged,
)
from emlab.evaluation.label_shares import LabelShares, LabelTally
from emlab.evaluation.labelling import Label, Labelled, Labeller, label_answers, save_labelled
from emlab.evaluation.loss import text_loss
from emlab.evaluation.rates import Rate, wilson
from emlab.evaluation.rollouts import Rollouts, sample
from emlab.evaluation.sampling import Sampling
from emlab.evaluation.scoring import Score, StepRates, Tally, score, score_judged

__all__ = [
    "AnswerJudge",
    "Calibration",
    "Difference",
    "Grade",
    "Judge",
    "Judged",
    "Judgement",
    "Label",
    "LabelShares",
    "LabelTally",
    "Labelled",
    "Labeller",
    "Rate",
    "RolloutJudge",
    "Rollouts",
    "Sampling",
    "Score",
    "StepRates",
    "Tally",
    "Thresholds",
    "clustered_rate",
    "compare",
    "corrected",
    "judge",
    "label_answers",
    "load_judged",
    "sample",
    "save_judged",
    "save_labelled",
    "score",
    "score_judged",
    "text_loss",
    "wilson",
]
