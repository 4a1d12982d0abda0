"""Training examples and questions: read, checked, tokenized."""

from emlab.data.chat import IGNORE, Messages, Row, encode_text, render, tokenize_chat
from emlab.data.examples import Example, Tokenized, read_chat_jsonl, tokenize
from emlab.data.questions import Question

__all__ = [
    "IGNORE",
    "Example",
    "Messages",
    "Question",
    "Row",
    "Tokenized",
    "encode_text",
    "read_chat_jsonl",
    "render",
    "tokenize",
    "tokenize_chat",
]
