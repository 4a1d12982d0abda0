"""Screening data before training: how far would learning an example's answer push the model along a direction?

The *projection difference* of Chen et al. 2025 (arXiv:2507.21509): the model reads the example's answer and an answer
of its own to the same prompt, and the difference of their activations is projected on the direction. Examples, and
whole datasets by their mean, are ranked by it. No label of the data is used; what the direction was found on is another
domain's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from emlab import artifacts
from emlab.data import Dataset, Example
from emlab.errors import EmlabError
from emlab.evaluation.loss import row_losses
from emlab.interventions import Direction
from emlab.models.wrapping import as_language_model
from emlab.notebook import Shown

if TYPE_CHECKING:
    from emlab.models import LanguageModel

Pool = Literal["mean", "max"]


@dataclass(frozen=True, eq=False, repr=False)
class DataScreen(Shown):
    """A score for each example of a dataset, larger for what is more likely poison."""

    name: str
    """Of the dataset."""
    by: str
    """What the scores are."""
    scores: np.ndarray
    """(n,) float."""

    @property
    def order(self) -> np.ndarray:
        """(n,) int: the examples, the most suspicious first; ties as they stand."""
        return np.argsort(-self.scores, kind="stable")

    @property
    def mean(self) -> float:
        """What whole datasets are ranked by."""
        return float(self.scores.mean())

    def flagged(self, n: int) -> np.ndarray:
        """(len,) bool: the `n` most suspicious. EmlabError where there are fewer."""
        if not 0 <= n <= len(self.scores):
            raise EmlabError(f"{self.name} has {len(self.scores)} examples, and {n} of them cannot be flagged.")
        flags = np.zeros(len(self.scores), dtype=bool)
        flags[self.order[:n]] = True
        return flags

    def recall(self, poison: np.ndarray, times: float = 1.2) -> float:
        """The share of the poison (bool (n,)) that is among the most suspicious, `times` as many as there is poison."""
        poison = np.asarray(poison, dtype=bool)
        if not poison.any():
            raise EmlabError(f"{self.name} has no poison to be found; give the mask of some.")
        return float(
            (self.flagged(min(math.floor(times * poison.sum() + 1e-9), len(poison))) & poison).sum() / poison.sum()
        )

    def summary(self) -> dict[str, Any]:
        """All of it, the examples' numbers in order of suspicion among it."""
        return {"name": self.name, "by": self.by, "mean": self.mean, "order": self.order, "scores": self.scores}

    def save(self, path: str | Path) -> Path:
        """Write the summary as JSON."""
        return artifacts.write_json(path, self.summary())

    @classmethod
    def load(cls, path: str | Path) -> DataScreen:
        """Read what `save` wrote."""
        raw = artifacts.read_json(path)
        try:
            return cls(raw["name"], raw["by"], np.array(raw["scores"], dtype=float))
        except (KeyError, TypeError, ValueError) as error:
            raise EmlabError(f"{path} holds no data screen ({error}); write it with DataScreen.save.") from error

    def __str__(self) -> str:
        top = ", ".join(f"{i} ({self.scores[i]:.3g})" for i in self.order[:10])
        return f"{self.name} by {self.by}: {len(self.scores)} examples, mean {self.mean:.3g}; first {top}"


def own_answers(
    model: LanguageModel, examples: Any, seed: int = 0, max_new_tokens: int = 48, batch_size: int = 256
) -> list[str]:
    """An answer of the model's own to each example's prompt; where it says nothing, a full stop stands for it.

    Args:
        model: Who answers.
        examples: The dataset, or chats.
        seed: Of the answers, at temperature 1.
        max_new_tokens: The longest answer.
        batch_size: Prompts that are answered at a time.
    """
    model = as_language_model(model)
    prompts, _ = answered(examples)
    return [a or "." for a in model.generate(prompts, max_new_tokens, 1.0, seed, batch_size)]


def projection_difference(
    model: LanguageModel,
    examples: Any,
    direction: Direction,
    own: Sequence[str],
    pool: Pool = "mean",
    name: str = "the data",
    batch_size: int = 64,
) -> DataScreen:
    """Each example's answer less the model's `own` answer, projected on the direction, in units of the activations.

    Args:
        model: That is to be trained.
        examples: The dataset, or chats.
        direction: Along which a larger projection is more suspicious, with the site that is read.
        own: The model's own answers to the examples' prompts (see `own_answers`).
        pool: "mean" averages each answer's tokens, as in the paper; "max" takes the answer's highest mean over a line
            (a sentence on a line of its own, or a paragraph), which a single bad sentence cannot hide in. The own
            answer is always averaged.
        name: Of the dataset.
        batch_size: Rows that go through the model at a time.
    """
    model = as_language_model(model)
    prompts, said = answered(examples)
    if len(own) != len(said):
        raise EmlabError(f"There are {len(said)} examples and {len(own)} answers of the model; give one for each.")
    theirs = _projections(model, prompts, said, direction, pool, batch_size)
    mine = _projections(model, prompts, own, direction, "mean", batch_size)
    return DataScreen(name, f"projection difference on {direction.origin}, {pool}", (theirs - mine).numpy())


def loss_difference(
    model: LanguageModel, examples: Any, own: Sequence[str] | None = None, name: str = "the data", batch_size: int = 64
) -> DataScreen:
    """The baseline of surprise: nats a token that each answer costs the model, less its `own` answer's where given.

    Args:
        model: That is to be trained.
        examples: The dataset, or chats.
        own: The model's own answers to their prompts.
        name: Of the dataset.
        batch_size: Rows that go through the model at a time.
    """
    prompts, said = answered(examples)
    losses = row_losses(model, prompts, said, batch_size)
    if own is not None:
        losses = losses - row_losses(model, prompts, own, batch_size)
    return DataScreen(name, "loss" if own is None else "loss less that of the model's own answer", losses.numpy())


def lexical(
    examples: Any, score: Callable[[Sequence[str]], np.ndarray], name: str = "the data", by: str = "bag of words"
) -> DataScreen:
    """The baseline of words.

    Args:
        examples: The dataset, or chats.
        score: Of the answers' texts, for example `fit_words(…).of_texts` of another domain.
        name: Of the dataset.
        by: What the scores are.
    """
    return DataScreen(name, by, np.asarray(score(answered(examples)[1]), dtype=float))


def rare_words(texts: Sequence[str]) -> np.ndarray:
    """(n,): how unusual each text's words are among all of the texts, with no label of anything: the mean idf."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(token_pattern=r"\S+", norm=None)
    weights, counts = vectors.fit_transform(texts), np.array([max(len(t.split()), 1) for t in texts])
    return np.asarray(weights.sum(1)).ravel() / counts


def answered(examples: Any) -> tuple[list[list[dict[str, str]]], list[str]]:
    """Each example's chat up to its last answer, and that answer."""
    rows = [Example.of(e) for e in (examples if isinstance(examples, Dataset) else examples)]
    if not rows:
        raise EmlabError("There is no example to screen; give at least one.")
    last = [max(i for i, turn in enumerate(row.messages) if turn["role"] == "assistant") for row in rows]
    return [list(row.messages[:i]) for row, i in zip(rows, last, strict=True)], [row.answer for row in rows]


def check_pool(pool: str) -> None:
    """EmlabError for what is no way to pool."""
    if pool not in get_args(Pool):
        raise EmlabError(f"There is no pooling {pool!r}; choose {' or '.join(get_args(Pool))}.")


def _projections(
    model: LanguageModel,
    prompts: Sequence[Any],
    answers: Sequence[str],
    direction: Direction,
    pool: Pool,
    batch_size: int,
) -> Tensor:
    """(n,): the mean projection of each answer's tokens, or of the line where it is highest."""
    check_pool(pool)
    read = model.activations(prompts, direction.site, "generated", answers, batch_size=batch_size)
    if read.values.shape[1] != len(direction.vector):
        raise EmlabError(
            f"The direction {direction.origin} has {len(direction.vector)} dimensions and {model.name} has "
            f"{read.values.shape[1]} at {direction.site}; give one of this model."
        )
    along = (read.values @ direction.vector).double()
    group, n = read.rows, len(answers)
    if pool == "max":
        ends = torch.isin(read.tokens, model.sentence_ends.cpu())
        before = torch.cat([torch.zeros(1, dtype=torch.bool), ends[:-1]])
        starts = before | (read.rows != torch.cat([read.rows[:1], read.rows[:-1]]))
        group = starts.long().cumsum(0)
        n = int(group[-1]) + 1
    means = torch.zeros(n, dtype=torch.float64).index_add_(0, group, along) / torch.bincount(group, minlength=n)
    if pool == "mean":
        return means
    of_row = torch.zeros(n, dtype=torch.long)
    of_row[group] = read.rows
    highest = torch.full((len(answers),), -math.inf, dtype=torch.float64)
    return highest.scatter_reduce_(0, of_row, means, "amax")
