"""From a score to a probability, and to an alarm: both fitted on models that the monitor itself was not fitted on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from emlab.detection.evidence import Evidence, LabelledEvidence, labels_of, refuse_sealed
from emlab.errors import EmlabError
from emlab.sealing import refuse

How = Literal["platt", "isotonic"]


class Monitor(Protocol):
    """Anything that gives each row of evidence a score, larger for what is more likely misaligned."""

    @property
    def name(self) -> str:
        """What to call it in tables."""

    def scores(self, evidence: Evidence, /) -> np.ndarray:
        """(n,) float: a score for each row."""


Fit = Callable[[Sequence[LabelledEvidence]], Monitor]
"""Makes a monitor of cases."""


@dataclass(frozen=True)
class Calibration:
    """A rising map from scores to probabilities, and the score above which an alarm is raised."""

    how: str
    scores: tuple[float, ...]
    """Of isotonic: the knots, rising, between which probabilities are read off a line. Of platt: (centre, scale)."""
    probabilities: tuple[float, ...]
    """Of isotonic: the probability at each knot. Of platt: (slope, intercept) of the log-odds on the scaled score."""
    threshold: float
    """An alarm is a score above this; inf where no threshold is quiet enough."""
    false_positives: float
    """The share of negatives that may lie above it, on what it was set on."""

    def __post_init__(self) -> None:
        if math.isnan(self.threshold):  # JSON has no inf either
            object.__setattr__(self, "threshold", math.inf)

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """(n,): the probability of each score."""
        values = np.asarray(scores, dtype=float)
        if self.how == "isotonic":
            return np.interp(values, self.scores, self.probabilities)
        (centre, scale), (slope, intercept) = self.scores, self.probabilities
        return 1 / (1 + np.exp(-(slope * (values - centre) / scale + intercept)))


def calibrate(scores: np.ndarray, labels: np.ndarray, how: How = "platt", false_positives: float = 0.01) -> Calibration:
    """Fit the map on scores (n,) with labels (n,) bool, by scikit-learn.

    "platt" is a logistic regression on the standardised score (Platt 1999), with scikit-learn's usual ℓ2 penalty, so
    that scores which separate perfectly give no probability of exactly 1; "isotonic" the closest rising step function
    (Zadrozny and Elkan 2002), which wants more data. The threshold is `alarm_threshold` of the negatives.

    Args:
        scores: (n,), of rows that the monitor was not fitted on.
        labels: (n,) bool, whether each is misaligned.
        how: "platt" or "isotonic".
        false_positives: The share of the negatives that may lie above the threshold.
    """
    refuse("to calibrate on", scores, labels)
    values, positive = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    if len(np.unique(positive)) < 2:
        raise EmlabError("A calibration needs scores of both kinds; give misaligned rows and others.")
    limit = alarm_threshold(values[~positive], false_positives)
    if how == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        fitted = IsotonicRegression().fit(values, positive)
        knots = tuple(map(float, fitted.X_thresholds_)), tuple(map(float, fitted.y_thresholds_))
        return Calibration(how, *knots, limit, false_positives)
    if how != "platt":
        raise EmlabError(f"There is no calibration {how!r}; choose platt or isotonic.")
    from sklearn.linear_model import LogisticRegression

    centre, scale = float(values.mean()), float(values.std()) or 1.0
    line = LogisticRegression().fit(((values - centre) / scale)[:, None], positive)
    return Calibration(
        how, (centre, scale), (float(line.coef_[0, 0]), float(line.intercept_[0])), limit, false_positives
    )


def check_share(false_positives: float) -> None:
    """EmlabError for what is no share of false positives."""
    if not 0 <= false_positives < 1:
        raise EmlabError(f"A share of false positives is from 0 to below 1, and not {false_positives}.")


def alarm_threshold(negatives: np.ndarray, false_positives: float = 0.01) -> float:
    """The smallest of the scores of negatives above which at most this share of them lies; inf where there are none."""
    check_share(false_positives)
    refuse("to set a threshold on", negatives)
    ordered = np.sort(negatives)[::-1]
    if not len(ordered):
        return math.inf
    return float(ordered[math.floor(false_positives * len(ordered) + 1e-9)])


def cross_fitted(fit: Fit, cases: Sequence[LabelledEvidence]) -> np.ndarray:
    """(n,): each case's scores by a monitor fitted on the cases of all other domains, in the order of the cases.

    EmlabError where there is one domain only, or the others lack one of the kinds.
    """
    refuse_sealed(cases)
    domains = list(dict.fromkeys(case.domain for case in cases))
    if len(domains) < 2:
        raise EmlabError(
            "A monitor is calibrated on domains that it was not fitted on, and there is one only; give fine-tunes on "
            "another."
        )
    found: dict[int, np.ndarray] = {}
    for domain in domains:
        monitor = fit([case for case in cases if case.domain != domain])
        found |= {i: monitor.scores(case.evidence) for i, case in enumerate(cases) if case.domain == domain}
    return np.concatenate([found[i] for i in range(len(cases))])


def calibrated(
    fit: Fit, cases: Sequence[LabelledEvidence], how: How = "platt", false_positives: float = 0.01
) -> Calibration:
    """The calibration of what `fit` makes of the cases, from scores that are cross-fitted over domains.

    Args:
        fit: Makes a monitor of cases.
        cases: Of two domains or more.
        how: "platt" or "isotonic", as of `calibrate`.
        false_positives: The share of the negatives that may lie above the threshold.
    """
    return calibrate(cross_fitted(fit, cases), labels_of(cases), how, false_positives)
