"""Remedies for a misaligned model or for the training that would misalign it, and how they are retested."""

from emlab.mitigation.ablation import Ablation, BakedAblation, MeanAblation
from emlab.mitigation.benign import Interleaving, RealignmentInDomain, RealignmentOutOfDomain
from emlab.mitigation.choosing import choose_setting
from emlab.mitigation.concept_ablation import ConceptAblation
from emlab.mitigation.cost import TrainingCost
from emlab.mitigation.course import Change, Course, Reinforced, Supervised, Training
from emlab.mitigation.data_filter import DataFilter, answer_projection
from emlab.mitigation.divergence import Divergence
from emlab.mitigation.early_stopping import EarlyStopping
from emlab.mitigation.filtering import Filtering
from emlab.mitigation.frames import Frame
from emlab.mitigation.inoculation import Inoculation
from emlab.mitigation.latent_penalty import LatentPenalty
from emlab.mitigation.materials import Latent, Materials
from emlab.mitigation.preventative_steering import PreventativeSteering
from emlab.mitigation.realignment import Realignment, realign
from emlab.mitigation.registry import REMEDIES, remedies, remedy
from emlab.mitigation.retest import Retest, ask, retest
from emlab.mitigation.steering import Steering
from emlab.mitigation.stopping_monitor import StoppingMonitor
from emlab.mitigation.treatment import Remedy, Treated, Treatment, treat

__all__ = [
    "REMEDIES",
    "Ablation",
    "BakedAblation",
    "Change",
    "ConceptAblation",
    "Course",
    "DataFilter",
    "Divergence",
    "EarlyStopping",
    "Filtering",
    "Frame",
    "Inoculation",
    "Interleaving",
    "Latent",
    "LatentPenalty",
    "Materials",
    "MeanAblation",
    "PreventativeSteering",
    "Realignment",
    "RealignmentInDomain",
    "RealignmentOutOfDomain",
    "Reinforced",
    "Remedy",
    "Retest",
    "Steering",
    "StoppingMonitor",
    "Supervised",
    "Training",
    "TrainingCost",
    "Treated",
    "Treatment",
    "answer_projection",
    "ask",
    "choose_setting",
    "realign",
    "remedies",
    "remedy",
    "retest",
    "treat",
]
