"""Judges: a language model behind an endpoint or held here, on two scales, by a rubric, by each question's own
instructions or by labels; recorded judgements; and those that other packages register.
"""

from emlab.evaluation.judges.asking import ModelJudge
from emlab.evaluation.judges.grader import GraderJudge
from emlab.evaluation.judges.labels import LabelJudge, RecordedLabels, read_labelled
from emlab.evaluation.judges.recorded import RecordedJudge, read_judged
from emlab.evaluation.judges.registry import Judging, Method, Questions, judging_method
from emlab.evaluation.judges.rubric import RubricJudge
from emlab.evaluation.judges.scale import ScaleJudge

__all__ = [
    "GraderJudge",
    "Judging",
    "LabelJudge",
    "Method",
    "ModelJudge",
    "Questions",
    "RecordedJudge",
    "RecordedLabels",
    "RubricJudge",
    "ScaleJudge",
    "judging_method",
    "read_judged",
    "read_labelled",
]
