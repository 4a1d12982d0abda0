"""What is said before rates where many answers went unjudged.

An answer without a verdict counts as one that is not misaligned in a share of all answers: a judge that cannot judge
would look like a model that refuses, or behaves. So a sentence heads the rates, wherever they are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

FEW = 0.05
"""Up to this share of answers may go unjudged without a word."""


def unjudged(failed: np.ndarray, never_came: Sequence[str], said: Sequence[str]) -> str:
    """The sentences that must head the rates; empty where there is nothing to say.

    `failed` is (n,) bool, the answers without a verdict; `never_came` (n,) says why there was no answer to judge, and
    `said` (n,) what the judge gave instead of a verdict.
    """
    missing = np.array([bool(why) for why in never_came], dtype=bool)
    return " ".join(
        sentence
        for sentence in (
            _sentence(failed & ~missing, said, "The judge gave no verdict on {} answers", "mend the judging first"),
            _sentence(missing, never_came, "{} answers never came", "sample them again"),
        )
        if sentence
    )


class Cautioned(Protocol):
    """A model's rates, and what must be said before them."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def caution(self) -> str:
        """Empty where there is nothing to say."""


def cautions(scores: Iterable[Cautioned]) -> list[str]:
    """The sentences that must head the rates of several models."""
    return list(dict.fromkeys(f"{score.model}: {score.caution}" for score in scores if score.caution))


def _sentence(rows: np.ndarray, why: Sequence[str], what: str, mend: str) -> str:
    n, total = int(rows.sum()), len(rows)
    if not total or n <= FEW * total:
        return ""
    told = Counter(why[i][:80] for i in np.flatnonzero(rows).tolist() if why[i])
    most = f", most often: {told.most_common(1)[0][0]!r}" if told else ""
    rest = "there is no rate" if n == total else "the rates are of the rest, and shares of all answers are too low"
    return f"CAUTION: {what.format(f'{n} of {total}')} ({n / total:.0%}{most}), so {rest}; {mend}."
