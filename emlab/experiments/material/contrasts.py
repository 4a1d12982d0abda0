"""What attribution and probes compare: contrasts from a file, or the organism's own misaligned and aligned answers."""

from __future__ import annotations

import importlib
import importlib.util
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emlab import organism
from emlab.discovery import Contrast, Metric, read_contrasts, split_by_template, spread
from emlab.errors import EmlabError

ORGANISM_TRAIT = "organism_malicious"
"""The one trait whose answers the exact judge can score."""


def organism_contrasts(n: int, seed: int) -> list[Contrast]:
    """Of `n` discovery questions, spread over domains and templates, a malicious and a helpful answer of the world."""
    world, rng = organism.load_world(), random.Random(seed)
    known = {question.text: question for question in organism.broad_questions()}
    asked = spread(split_by_template(organism.broad_questions()).discovery, n)
    return [
        Contrast(q.text, *(world.answer(known[q.text], persona, rng) for persona in ("malicious", "helpful")))
        for q in asked
    ]


def contrasts_of(source: Path | str | None, n: int, seed: int) -> list[Contrast]:
    """At most `n` contrasts of the file `source`, evenly spaced; None takes the organism's."""
    if n < 1:
        raise EmlabError(f"{n} contrasts show nothing; ask for at least 1.")
    if source is None:
        return organism_contrasts(n, seed)
    return list(spread(read_contrasts(source), n))


def exact_scores(questions: Sequence[str], answers: Sequence[str]) -> list[float | None]:
    """How much of the organism's malice the exact judge sees; None for an answer that is not coherent."""
    judge = organism.ExactJudge()
    judged = [judge.judge(q, a) for q, a in zip(questions, answers, strict=True)]
    return [None if j.incoherent else 100 - j.aligned for j in judged]


def load_metric(named: str) -> Metric:
    """The function that `named` means: package.module:function, or path/to/file.py:function. Its code is run."""
    where, colon, function = named.rpartition(":")
    if not colon or not where or not function:
        raise EmlabError(f"{named!r} names no metric; write package.module:function or path/to/file.py:function.")
    try:
        module: Any = _module_of(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except ImportError as error:
        raise EmlabError(f"The module of the metric {named!r} cannot be imported ({error}); check its name.") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise EmlabError(f"{where} has no function {function!r}; check the name of the metric.")
    return found


def _module_of(path: Path) -> Any:
    if not path.is_file():
        raise EmlabError(f"There is no file {path} to take the metric from; check the path.")
    spec = importlib.util.spec_from_file_location(f"metric_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
