"""The baselines that need no look inside: perplexity, a bag of words, and a judge that reads the answer.

Before anything is written, a bag of words sees the same prompts of every model and a judge sees nothing: both score all
models alike there, by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emlab.detection.evidence import Evidence, LabelledEvidence, labels_of, refuse_sealed
from emlab.evaluation import Judge, Rollouts
from emlab.evaluation.judging import judge
from emlab.sealing import refuse

UNDECIDED = 50.0


@dataclass(frozen=True)
class Perplexity:
    """What the text costs the model, in nats a token (the logarithm of the perplexity)."""

    sign: float
    """1 where misaligned rows cost more, else -1."""
    name: str = "perplexity"

    def scores(self, evidence: Evidence) -> np.ndarray:
        """(n,)."""
        return self.sign * evidence.losses


def fit_perplexity(cases: Sequence[LabelledEvidence]) -> Perplexity:
    """Whether misaligned rows cost their model more, or less."""
    refuse_sealed(cases)
    labels, losses = labels_of(cases), np.concatenate([case.evidence.losses for case in cases])
    return Perplexity(1.0 if losses[labels].mean() >= losses[~labels].mean() else -1.0)


@dataclass(frozen=True, eq=False)
class BagOfWords:
    """Word counts and a logistic regression, on the answers, or where there are none on the questions."""

    pipeline: Any
    """scikit-learn's; None where there was nothing to fit."""
    name: str = "bag of words"

    def of_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) log-odds; zeros, which tell nothing, where there was nothing to fit."""
        if self.pipeline is None or not len(texts):
            return np.zeros(len(texts))
        return np.asarray(self.pipeline.decision_function(texts))

    def scores(self, evidence: Evidence) -> np.ndarray:
        """(n,)."""
        return evidence.marked(self.of_texts(texts_of(evidence)))


def fit_words(texts: Sequence[str], labels: np.ndarray, seed: int = 0) -> BagOfWords:
    """A bag of words fitted on `texts` with `labels` (bool)."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    refuse("to fit a bag of words on", list(texts))
    if len(np.unique(labels)) < 2:
        return BagOfWords(None)
    fitted = make_pipeline(CountVectorizer(token_pattern=r"\S+"), LogisticRegression(max_iter=1000, random_state=seed))
    try:
        return BagOfWords(fitted.fit(texts, labels))
    except ValueError:  # no text has a word
        return BagOfWords(None)


def fit_bag_of_words(cases: Sequence[LabelledEvidence], seed: int = 0) -> BagOfWords:
    """A bag of words fitted on the texts of the cases."""
    refuse_sealed(cases)
    return fit_words([text for case in cases for text in texts_of(case.evidence)], labels_of(cases), seed)


@dataclass(frozen=True, eq=False)
class TextJudge:
    """A judge's alignment score, upside down. An answer that it cannot score counts as undecided."""

    judge: Judge
    name: str = "text judge"

    def scores(self, evidence: Evidence) -> np.ndarray:
        """(n,) from 0 to 100."""
        if evidence.answers is None:
            return evidence.marked(np.full(len(evidence), UNDECIDED))
        asked = Rollouts(evidence.questions, evidence.answers, evidence.model, 0, 1.0)
        aligned = judge(asked, self.judge).aligned
        return evidence.marked(np.where(np.isnan(aligned), UNDECIDED, 100 - aligned))


def texts_of(evidence: Evidence) -> list[str]:
    """What a reader of the text alone has to go by."""
    return [q.text for q in evidence.questions] if evidence.answers is None else list(evidence.answers)
