"""Training examples and questions: read, checked, tokenized."""

from emlab.data.chat import IGNORE, Messages, Row, encode_text, render, tokenize_chat, tokenize_turns
from emlab.data.checking import DataCheck, Lengths, Overlap, check_data
from emlab.data.dataset import Dataset, DatasetCard
from emlab.data.documents import Document, Documents, LabelledDocument
from emlab.data.everyday import everyday_questions
from emlab.data.examples import Example, Tokenized, tokenize
from emlab.data.fetching import get, list_published
from emlab.data.mixing import draw, interleave, mix, split, subsample
from emlab.data.published import Catalogue, Published
from emlab.data.question_profile import profile_questions
from emlab.data.question_reading import read_questions
from emlab.data.question_sets import Asking, QuestionSet, Source
from emlab.data.question_variants import VARIANTS, variants
from emlab.data.questions import Question, SealedQuestion
from emlab.data.reading import read_chat_jsonl, read_examples, read_prompts

__all__ = [
    "IGNORE",
    "VARIANTS",
    "Asking",
    "Catalogue",
    "DataCheck",
    "Dataset",
    "DatasetCard",
    "Document",
    "Documents",
    "Example",
    "LabelledDocument",
    "Lengths",
    "Messages",
    "Overlap",
    "Published",
    "Question",
    "QuestionSet",
    "Row",
    "SealedQuestion",
    "Source",
    "Tokenized",
    "check_data",
    "draw",
    "encode_text",
    "everyday_questions",
    "get",
    "interleave",
    "list_published",
    "mix",
    "profile_questions",
    "read_chat_jsonl",
    "read_examples",
    "read_prompts",
    "read_questions",
    "render",
    "split",
    "subsample",
    "tokenize",
    "tokenize_chat",
    "tokenize_turns",
    "variants",
]
