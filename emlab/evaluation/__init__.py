"""Evaluation: sample answers, judge them, and give rates with their intervals."""

from emlab.evaluation.judging import Judge, Judged, Judgement, judge, load_judged, save_judged
from emlab.evaluation.loss import text_loss
from emlab.evaluation.rates import Rate, bootstrap, wilson
from emlab.evaluation.rollouts import Rollouts, sample
from emlab.evaluation.scoring import Score, score, score_judged

__all__ = [
    "Judge",
    "Judged",
    "Judgement",
    "Rate",
    "Rollouts",
    "Score",
    "bootstrap",
    "judge",
    "load_judged",
    "sample",
    "save_judged",
    "score",
    "score_judged",
    "text_loss",
    "wilson",
]
