"""Detection: monitors of models and answers by what is read inside a model, early warning, and screening of data."""

from emlab.detection.activation_monitor import ActivationMonitor, Latents, Linear
from emlab.detection.auroc import Auroc, auroc
from emlab.detection.blame import blame, reading_change
from emlab.detection.calibration import (
    Calibration,
    Fit,
    Monitor,
    alarm_threshold,
    calibrate,
    calibrated,
    cross_fitted,
)
from emlab.detection.early_warning import ALWAYS, Curve, Warned, noise, warned
from emlab.detection.evidence import Evidence, LabelledEvidence, evidence
from emlab.detection.fitting import fit_latents, fit_probe, fit_projection
from emlab.detection.lineage import Lineage
from emlab.detection.monitors import Detection, Reading, detect
from emlab.detection.onset import Onset, Point, onset
from emlab.detection.screening import (
    DataScreen,
    lexical,
    loss_difference,
    own_answers,
    projection_difference,
    rare_words,
)
from emlab.detection.skill import Skill, skill
from emlab.detection.streaming import Watched, watch
from emlab.detection.text_monitors import (
    BagOfWords,
    Perplexity,
    TextJudge,
    fit_bag_of_words,
    fit_perplexity,
    fit_words,
)

__all__ = [
    "ALWAYS",
    "ActivationMonitor",
    "Auroc",
    "BagOfWords",
    "Calibration",
    "Curve",
    "DataScreen",
    "Detection",
    "Evidence",
    "Fit",
    "LabelledEvidence",
    "Latents",
    "Lineage",
    "Linear",
    "Monitor",
    "Onset",
    "Perplexity",
    "Point",
    "Reading",
    "Skill",
    "TextJudge",
    "Warned",
    "Watched",
    "alarm_threshold",
    "auroc",
    "blame",
    "calibrate",
    "calibrated",
    "cross_fitted",
    "detect",
    "evidence",
    "fit_bag_of_words",
    "fit_latents",
    "fit_perplexity",
    "fit_probe",
    "fit_projection",
    "fit_words",
    "lexical",
    "loss_difference",
    "noise",
    "onset",
    "own_answers",
    "projection_difference",
    "rare_words",
    "reading_change",
    "skill",
    "warned",
    "watch",
]
