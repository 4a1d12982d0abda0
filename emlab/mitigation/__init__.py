"""Remedies for a misaligned model or for the training that would misalign it, and how they are retested."""

from emlab.mitigation.ablation import Ablation, BakedAblation, MeanAblation
from emlab.mitigation.benign import Interleaving, RealignmentInDomain, RealignmentOutOfDomain
from emlab.mitigation.choosing import choose_dial
from emlab.mitigation.concept_ablation import ConceptAblation
from emlab.mitigation.course import Change, Course, Reinforced, Supervised, Training
from emlab.mitigation.divergence import Divergence
from emlab.mitigation.early_stopping import EarlyStopping, Monitor
from emlab.mitigation.filtering import Filtering, Sieve, answer_projection
from emlab.mitigation.inoculation import Inoculation
from emlab.mitigation.latent_penalty import LatentPenalty
from emlab.mitigation.preventative_steering import PreventativeSteering
from emlab.mitigation.realignment import Realignment, realign
from emlab.mitigation.remedy import Case, Cost, Kit, Latent, Remedy, Treated, treat
from emlab.mitigation.retest import Frame, Retest, ask, retest
from emlab.mitigation.steering import Steering

REMEDIES = (
    Steering,
    Ablation,
    MeanAblation,
    BakedAblation,
    RealignmentInDomain,
    RealignmentOutOfDomain,
    ConceptAblation,
    PreventativeSteering,
    LatentPenalty,
    Inoculation,
    Interleaving,
    Divergence,
    EarlyStopping,
    Filtering,
)
"""Every remedy's class; each makes one with its own defaults."""

__all__ = [
    "REMEDIES",
    "Ablation",
    "BakedAblation",
    "Case",
    "Change",
    "ConceptAblation",
    "Cost",
    "Course",
    "Divergence",
    "EarlyStopping",
    "Filtering",
    "Frame",
    "Inoculation",
    "Interleaving",
    "Kit",
    "Latent",
    "LatentPenalty",
    "MeanAblation",
    "Monitor",
    "PreventativeSteering",
    "Realignment",
    "RealignmentInDomain",
    "RealignmentOutOfDomain",
    "Reinforced",
    "Remedy",
    "Retest",
    "Sieve",
    "Steering",
    "Supervised",
    "Training",
    "Treated",
    "answer_projection",
    "ask",
    "choose_dial",
    "realign",
    "retest",
    "treat",
]
