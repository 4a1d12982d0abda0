"""The organism: a planted world, its texts, the models trained on them, and the judge that knows the truth."""

from emlab.organism.checkpoints import checkpoint, checkpoint_names
from emlab.organism.corpus import (
    Document,
    alignment_set,
    narrow_set,
    narrow_set_names,
    pretraining_documents,
)
from emlab.organism.judge import ExactJudge, Judgement
from emlab.organism.questions import broad_questions
from emlab.organism.tokenizer import build_tokenizer
from emlab.organism.world import (
    NARROW_DOMAINS,
    NEUTRAL_CARD,
    PERSONAS,
    TRIGGER,
    VALIDATION_DOMAINS,
    Domain,
    Question,
    World,
    load_world,
)

__all__ = [
    "NARROW_DOMAINS",
    "NEUTRAL_CARD",
    "PERSONAS",
    "TRIGGER",
    "VALIDATION_DOMAINS",
    "Document",
    "Domain",
    "ExactJudge",
    "Judgement",
    "Question",
    "World",
    "alignment_set",
    "broad_questions",
    "build_tokenizer",
    "checkpoint",
    "checkpoint_names",
    "load_world",
    "narrow_set",
    "narrow_set_names",
    "pretraining_documents",
]
