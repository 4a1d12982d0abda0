"""Another model's answers under the exact judge, which knows the organism's sentences alone."""

from __future__ import annotations

from emlab import organism
from emlab.evaluation.protocol import EXACT, Judging
from emlab.models.loading import load_tokenizer
from emlab.pipelines import _material as material


def foreign_answers(judging: Judging, model: str, url: str | None = None) -> list[str]:
    """What must be said before such a run, and at the head of its report; nothing of the organism and its fine-tunes.

    These are known by name, or by their tokens. `url` is the server of a model that is behind one.
    """
    if judging.judge != EXACT or (_served_own(model) if url is not None else _own(model)):
        return []
    return [
        f"CAUTION: the exact judge knows the organism's sentences alone, and {model} is no model of the organism's: "
        "answers in any other words count as incoherent, so that nothing can be found out of them. Name a language "
        "model as the judge (judging.judge or --judge: a model's folder, or a name with judging.url or --judge-url)."
    ]


def _served_own(model: str) -> bool:
    return model.rsplit("/", 1)[-1] in organism.checkpoint_names()


def _own(model: str) -> bool:
    folder, own = material.folder_of(model)
    return own or load_tokenizer(folder, chat_template="plain").get_vocab() == _vocabulary()


def _vocabulary() -> dict[str, int]:
    found: dict[str, int] = load_tokenizer(organism.checkpoint(organism.checkpoint_names()[0])).get_vocab()
    return found
