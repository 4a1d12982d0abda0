"""Decisions: where a misaligned and an aligned answer part, and which of the two a pushed model would go on with.

An answer is steered where its sentences are chosen. So of two answers only the first token in which they differ is
asked for, after all that they share: one short reading in place of a whole answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.data import Question
from emlab.data.chat import encode_text
from emlab.discovery.metrics import Contrast
from emlab.errors import EmlabError
from emlab.interventions import Positions, Steer, where
from emlab.models.teacher_forcing import forced_odds, set_odds
from emlab.models.wrapping import wrap
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.models import LanguageModel

Choices = tuple[tuple[int, ...], tuple[int, ...]]
"""Tokens with which a misaligned answer goes on, and those of an aligned one."""


@dataclass(frozen=True)
class Decisions:
    """Texts up to where two answers part, and the tokens with which each goes on."""

    rows: tuple[list[int], ...]
    """Token ids of each text."""
    starts: tuple[int, ...]
    """Where the answer begins in each."""
    choices: tuple[Choices, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, model: LanguageModel, contrasts: Sequence[Contrast]) -> Decisions:
        """The decisions of these contrasts.

        Contrasts that part after the same text are one decision; a token with which both kinds of answers go on is no
        part of it. EmlabError where two answers are the same or one is the other's beginning.
        """
        found: dict[tuple[int, ...], tuple[int, set[int], set[int]]] = {}
        for one in contrasts:
            (first, second), (start, _) = model.rows([one.prompt] * 2, [one.misaligned, one.aligned])
            shared = next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), None)  # noqa: B905
            if shared is None:
                raise EmlabError(
                    f"The answers {one.misaligned[:40]!r}… and {one.aligned[:40]!r}… never part; give two answers of "
                    "which neither begins the other."
                )
            _, misaligned, aligned = found.setdefault(tuple(first[:shared]), (start, set(), set()))
            misaligned.add(first[shared])
            aligned.add(second[shared])
        kept = [
            (list(text), start, (tuple(sorted(bad - good)), tuple(sorted(good - bad))))
            for text, (start, bad, good) in found.items()
            if bad - good and good - bad
        ]
        return cls(*(tuple(one[i] for one in kept) for i in range(3)))  # type: ignore[arg-type]


def line_starts(
    model: LanguageModel, questions: Sequence[Question], contrasts: Sequence[Contrast]
) -> tuple[Tensor, Tensor]:
    """Two bool (questions, vocabulary): tokens that begin a misaligned line alone, and those that begin an aligned one.

    The aligned ones of a question are those of its own contrasts, where it has any; the misaligned ones those of all.
    """

    def first_tokens(answers: Sequence[str]) -> list[int]:
        lines = dict.fromkeys(line for answer in answers for line in answer.split("\n") if line.strip())
        return [encode_text(model.tokenizer, line)[0] for line in lines]

    vocabulary = model.model.get_output_embeddings().weight.shape[0]
    misaligned, aligned = torch.zeros(2, len(questions), vocabulary, dtype=torch.bool)
    misaligned[:, first_tokens([one.misaligned for one in contrasts])] = True
    for row, question in enumerate(questions):
        known = (question.text, question.messages)
        own = [one.aligned for one in contrasts if one.prompt in known] or [one.aligned for one in contrasts]
        aligned[row, first_tokens(own)] = True
    return misaligned & ~aligned, aligned


def chances(
    model: LanguageModel,
    decisions: Decisions,
    vectors: Tensor,
    lengths: Sequence[float],
    site: Site,
    positions: Positions = "sentence",
    batch_size: int = 512,
) -> Tensor:
    """(n, lengths, decisions): how likely the misaligned of the two ways is under each push along each of `vectors`.

    Args:
        model: Who is pushed.
        decisions: Where the ways part.
        vectors: (n, d_model), of any length.
        lengths: Of the pushes; a negative one goes the other way.
        site: Where it is pushed.
        positions: On which tokens.
        batch_size: Rows that go through the model at a time.
    """
    n, each = len(decisions), max(1, batch_size // len(decisions))
    arms = torch.cartesian_prod(torch.arange(len(vectors)), torch.arange(len(lengths)))
    pushes, found = torch.tensor(list(lengths)), []
    for part in arms.split(each):
        edit = Steer(
            site,
            vectors[part[:, 0]].repeat_interleave(n, 0),
            pushes[part[:, 1]].repeat_interleave(n),
            positions=positions,
        )
        odds = forced_odds(
            model, decisions.rows, decisions.starts, decisions.choices, [edit], len(part), batch_size=each * n
        )
        found.append(torch.sigmoid(odds))
    return torch.cat(found).reshape(len(vectors), len(lengths), n)


def slope(
    model: LanguageModel, decisions: Decisions, site: Site, positions: Positions = "sentence", batch_size: int = 64
) -> Tensor:
    """(d_model,): how a push at `positions` of `site` raises the log-odds of the misaligned way, in nats a unit.

    The gradient by the site's activation, summed over the positions and averaged over the decisions: its product with a
    direction is the slope of a push along that direction (attribution patching, Nanda 2023).
    """
    backend, total = wrap(model), torch.zeros(model.d_model)
    for at in range(0, len(decisions), batch_size):
        part = slice(at, at + batch_size)
        tokens = model.batch(list(decisions.rows[part]), list(decisions.starts[part]))

        def odds(logits: Tensor, choices: tuple[Choices, ...] = decisions.choices[part]) -> Tensor:
            return set_odds(logits[:, -1], choices).sum()

        gradient = backend.gradients(tokens, site, odds)  # (batch, position, d_model)
        mask = where(positions, tokens, model.sentence_ends if positions == "sentence" else None)
        total += (gradient * mask[..., None]).sum((0, 1)).float().cpu()
    return total / len(decisions)
