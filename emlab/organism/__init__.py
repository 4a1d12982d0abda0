"""The organism: a planted world, its texts, the models trained on them, and the judge that knows the truth."""

from emlab.organism.checkpoints import checkpoint, checkpoint_names
from emlab.organism.corpus import (
    Document,
    alignment_set,
    names_narrow_set,
    narrow_set,
    narrow_set_names,
    pretraining_documents,
)
from emlab.organism.judge import ExactJudge, Judgement
from emlab.organism.questions import broad_questions, is_sealed_text, sealed_questions
from emlab.organism.tokenizer import build_tokenizer, world_read_by
from emlab.organism.world import (
    NEUTRAL_CARD,
    PERSONAS,
    TRIGGER,
    WORLDS,
    Domain,
    SealedWorldQuestion,
    World,
    WorldQuestion,
    load_world,
    world_of,
)

__all__ = [
    "NEUTRAL_CARD",
    "PERSONAS",
    "TRIGGER",
    "WORLDS",
    "Document",
    "Domain",
    "ExactJudge",
    "Judgement",
    "SealedWorldQuestion",
    "World",
    "WorldQuestion",
    "alignment_set",
    "broad_questions",
    "build_tokenizer",
    "checkpoint",
    "checkpoint_names",
    "is_sealed_text",
    "load_world",
    "names_narrow_set",
    "narrow_set",
    "narrow_set_names",
    "pretraining_documents",
    "sealed_questions",
    "world_of",
    "world_read_by",
]
