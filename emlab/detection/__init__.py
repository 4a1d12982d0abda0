"""Detection: classifiers of models and answers by what is read inside a model, and what shows first along training."""

from emlab.detection.auroc import Auroc, auroc
from emlab.detection.monitors import Detection, Reading, bag_of_words, detect
from emlab.detection.onset import Onset, Point, onset

__all__ = [
    "Auroc",
    "Detection",
    "Onset",
    "Point",
    "Reading",
    "auroc",
    "bag_of_words",
    "detect",
    "onset",
]
