"""Evidence: all that monitors may read of one model, gathered once, so that every monitor reads the same.

Without answers the model has read each question and written nothing, and a site is read at the assistant's header. With
answers it reads them again, its own or another's, and a site is read on their tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from emlab.data import Question
from emlab.data.prompts import answers_of, as_questions
from emlab.detection.lineage import Lineage
from emlab.errors import EmlabError
from emlab.evaluation.loss import row_losses
from emlab.models.activations import Activations
from emlab.models.wrapping import as_language_model
from emlab.sealing import Sealed, refuse
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.models import LanguageModel


class SealedScores(np.ndarray, Sealed):
    """Scores or losses that sealed questions have had a part in; arrays that are made of them are sealed, too."""

    def __array_function__(self, *call: Any) -> Any:
        found = super().__array_function__(*call)
        return found.view(SealedScores) if type(found) is np.ndarray else found


@dataclass(frozen=True, eq=False)
class Evidence:
    """n prompts, or n answers, as one model reads them."""

    lineage: Lineage
    questions: tuple[Question, ...]
    """(n,) the question of each row."""
    answers: tuple[str, ...] | None
    """(n,); None where the model has written nothing yet."""
    activations: Mapping[Site, Activations]
    """Of each site: at the header, or with answers on all of their tokens; `rows` are the n rows."""
    losses: np.ndarray = field(repr=False)
    """(n,) nats a token that the answer, or without answers the prompt, costs the model."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "losses", self.marked(self.losses))

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.lineage.model

    def at(self, site: Site) -> Activations:
        """The activations of a site; EmlabError where it was not read."""
        if site not in self.activations:
            read = ", ".join(map(str, self.activations)) or "no site"
            raise EmlabError(f"{self.model} was read at {read}, and the monitor reads {site}; read it there.")
        return self.activations[site]

    @property
    def sealed(self) -> bool:
        """Whether some question is."""
        return any(isinstance(question, Sealed) for question in self.questions)

    def marked(self, values: np.ndarray) -> np.ndarray:
        """Values of the rows, as sealed ones where the evidence is sealed."""
        return values.view(SealedScores) if self.sealed else values

    def row_means(self, site: Site, values: Tensor) -> np.ndarray:
        """(n, …): the mean over each row's tokens of `values` (tokens, …), one for each activation of the site."""
        rows = self.at(site).rows
        total = torch.zeros(len(self), *values.shape[1:], dtype=torch.float64)
        total.index_add_(0, rows, values.double().cpu())
        counts = torch.bincount(rows, minlength=len(self)).reshape(-1, *(1 for _ in values.shape[1:]))
        return self.marked((total / counts).numpy())


def evidence(
    model: LanguageModel,
    questions: Sequence[Question],
    sites: Sequence[Site],
    answers: Sequence[str] | None = None,
    batch_size: int = 64,
) -> Evidence:
    """What `model` makes of the questions, or of `answers` to them, at the sites.

    EmlabError for no question, an empty answer, and a site that the model does not have.

    Args:
        model: Who reads.
        questions: What is asked.
        sites: Where it is read.
        answers: One for each question, none empty; without them the model is read before it writes a word.
        batch_size: Rows that go through the model at a time.
    """
    model, questions, answers = as_language_model(model), as_questions(questions), answers_of(answers)
    if not questions:
        raise EmlabError("There is nothing for a monitor to read; give at least one question.")
    if answers is not None and len(answers) != len(questions):
        raise EmlabError(
            f"There are {len(questions)} questions and {len(answers)} answers; give one answer a question."
        )
    if answers is not None and not all(answers):
        raise EmlabError("An empty answer has no token to read; leave its question out.")
    prompts = [question.messages for question in questions]
    where = "header" if answers is None else "generated"
    return Evidence(
        Lineage.of(model),
        tuple(questions),
        None if answers is None else tuple(answers),
        {site: model.activations(prompts, site, where, answers, batch_size=batch_size) for site in sites},
        row_losses(model, prompts, answers, batch_size=batch_size).numpy(),
    )


@dataclass(frozen=True, eq=False)
class LabelledEvidence:
    """Evidence of which the truth is known: what monitors are fitted on, and tested on."""

    evidence: Evidence
    labels: np.ndarray
    """(n,) bool: the model, or the answer, is misaligned."""
    model: str
    """The fine-tune: all its rows are drawn together where an interval is estimated."""
    domain: str
    """What the model was fine-tuned on: a monitor that is calibrated on this has seen none of it."""

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.evidence):
            raise EmlabError(f"There are {len(self.evidence)} rows and {len(self.labels)} labels; give one for each.")


def refuse_sealed(cases: Sequence[LabelledEvidence]) -> None:
    """EmlabError where a question of some case is sealed: monitors are fitted and calibrated on others."""
    refuse("to fit a monitor on", *(c.evidence.questions for c in cases if isinstance(c.evidence, Evidence)))


def labels_of(cases: Sequence[LabelledEvidence]) -> np.ndarray:
    """(n,) bool: the labels of all cases; EmlabError unless both kinds are among them."""
    labels = np.concatenate([case.labels for case in cases]) if cases else np.zeros(0, dtype=bool)
    if len(np.unique(labels)) < 2:
        raise EmlabError("A monitor is fitted on misaligned rows and on others; give cases of both kinds.")
    return labels.astype(bool)
