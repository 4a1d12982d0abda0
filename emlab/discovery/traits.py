"""Traits: contrastive instructions that a persona vector is made from, in the form of the published trait files.

A file is JSON with `instruction` (pairs of a text that asks for the trait, `pos`, and one that asks for its opposite,
`neg`), `questions`, and `eval_prompt` (asks a judge how much of the trait an answer shows, 0 to 100). Chen et al. 2025
(arXiv:2507.21509) published theirs in this form; those that ship with emlab are in its own words, and may name the
assistant by a key of their own, `assistant`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from emlab import artifacts
from emlab.errors import EmlabError

SHIPPED = Path(__file__).parent / "trait_files"

Sign = Literal["pos", "neg"]


@dataclass(frozen=True)
class Pair:
    """An instruction to show the trait, and one to show its opposite."""

    pos: str
    neg: str


@dataclass(frozen=True)
class Trait:
    """What a persona vector is made from."""

    name: str
    instruction: tuple[Pair, ...]
    questions: tuple[str, ...]
    eval_prompt: str = ""
    """With places for the {question} and the {answer}; empty where there is none."""
    assistant: Pair | None = None
    """What kind of assistant each instruction makes, such as "evil" and "helpful"; None: the instruction alone says."""

    def system(self, pair: Pair, sign: Sign) -> str:
        """The system turn of an instruction."""
        text = pair.pos if sign == "pos" else pair.neg
        if self.assistant is None:
            return text
        kind = self.assistant.pos if sign == "pos" else self.assistant.neg
        return f"You are {'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind} assistant. {text}"


def trait_names() -> list[str]:
    """The traits that ship with emlab."""
    return sorted(file.stem for file in SHIPPED.glob("*.json"))


def read_trait(source: str | Path) -> Trait:
    """A trait that ships with emlab, by name, or one in a file of the published form.

    EmlabError for a file that is not there, and naming what is missing or wrong in one that is.
    """
    path = SHIPPED / f"{source}.json"
    if str(source) not in trait_names():
        path = artifacts.place(source)
        if not path.is_file():
            raise EmlabError(
                f"There is no trait {str(source)!r}; name a JSON file, or one of {', '.join(trait_names())}."
            )
    raw = artifacts.read_json(path)
    if not isinstance(raw, dict):
        raise EmlabError(
            f"{path} holds no trait; it must be a JSON object with instruction, questions and eval_prompt."
        )
    pairs, questions = raw.get("instruction"), raw.get("questions")
    if not isinstance(pairs, list) or not pairs or not all(_is_pair(pair) for pair in pairs):
        raise EmlabError(f"{path}: 'instruction' must be a list of pairs, each with a text as 'pos' and one as 'neg'.")
    if not isinstance(questions, list) or not questions or not all(_is_text(q) for q in questions):
        raise EmlabError(f"{path}: 'questions' must be a list of texts; give at least one.")
    prompt, assistant = raw.get("eval_prompt", ""), raw.get("assistant")
    if not isinstance(prompt, str) or (prompt and "{answer}" not in prompt):
        raise EmlabError(f"{path}: 'eval_prompt' must be a text with a place for the {{answer}}.")
    if assistant is not None and not _is_pair(assistant):
        raise EmlabError(f"{path}: 'assistant' must have a text as 'pos' and one as 'neg'.")
    return Trait(path.stem, tuple(map(_pair, pairs)), tuple(questions), prompt, assistant and _pair(assistant))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_pair(value: Any) -> bool:
    return isinstance(value, dict) and _is_text(value.get("pos")) and _is_text(value.get("neg"))


def _pair(raw: Mapping[str, str]) -> Pair:
    return Pair(raw["pos"], raw["neg"])
