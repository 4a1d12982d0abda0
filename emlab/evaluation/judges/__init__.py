"""Judges: a language model behind an endpoint or held here, on two scales, by a rubric, by each question's own
instructions or by labels; and recorded judgements.

The organism's own, exact judge is `emlab.organism.ExactJudge`.
"""

from emlab.evaluation.judges.grader import GraderJudge
from emlab.evaluation.judges.labels import LabelJudge, RecordedLabels, read_labelled
from emlab.evaluation.judges.recorded import RecordedJudge, read_judged
from emlab.evaluation.judges.rubric import RubricJudge, incoherence
from emlab.evaluation.judges.scale import ScaleJudge

__all__ = [
    "GraderJudge",
    "LabelJudge",
    "RecordedJudge",
    "RecordedLabels",
    "RubricJudge",
    "ScaleJudge",
    "incoherence",
    "read_judged",
    "read_labelled",
]
