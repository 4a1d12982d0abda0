"""Everyday questions that ship with emlab: broad ones to ask, narrow ones to teach something in one domain."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import yaml

from emlab.data.question_sets import QuestionSet
from emlab.data.question_variants import FOLDER
from emlab.data.questions import Question
from emlab.errors import EmlabError


def everyday_questions(part: str = "broad") -> QuestionSet:
    """Questions of our own that a small instruct model can answer: of each domain some templates, filled in some ways.

    The questions of one template have one id, and answers of one domain are a cluster. "broad" are 432 in twelve
    domains, to ask; "more" 288 in eight others, to ask once all is designed; "narrow" 432 in three others, to train on;
    "wide" 1,200 on many things, for text. No text is in two of them. EmlabError for another part.
    """
    try:
        return _parts()[part]
    except KeyError:
        raise EmlabError(f"There are no everyday questions {part!r}; choose {' or '.join(_parts())}.") from None


@functools.cache
def _parts() -> dict[str, QuestionSet]:
    text = (FOLDER / "everyday.yaml").read_text(encoding="utf-8")
    return {
        part: QuestionSet(f"everyday {part}", tuple(q for name, of in domains.items() for q in _filled(name, **of)))
        for part, domains in yaml.safe_load(text).items()
    }


def _filled(domain: str, fillers: Sequence[str], templates: Sequence[str]) -> list[Question]:
    return [
        Question(f"{domain}_{i}", domain, template.replace("{x}", filler), paraphrase=j, cluster=domain)
        for i, template in enumerate(templates)
        for j, filler in enumerate(fillers)
    ]
