"""Evaluation: sample answers, judge them, and give rates with their intervals."""

from emlab.evaluation.judging import Judge, Judged, Judgement, judge
from emlab.evaluation.rates import Rate, bootstrap, wilson
from emlab.evaluation.rollouts import Rollouts, sample
from emlab.evaluation.scoring import Score, score

__all__ = [
    "Judge",
    "Judged",
    "Judgement",
    "Rate",
    "Rollouts",
    "Score",
    "bootstrap",
    "judge",
    "sample",
    "score",
    "wilson",
]
