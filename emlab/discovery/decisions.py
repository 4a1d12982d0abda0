"""Decisions: where a misaligned and an aligned answer part, and which of the two a pushed model would go on with.

An answer is steered where its sentences are chosen. So of two answers only the first token in which they differ is
asked for, after all that they share: one short reading in place of a whole answer. Line by line there is a decision
after each beginning of the aligned answer, as a model that begins well may still turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

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
    cases: tuple[int, ...]
    """The first of the contrasts from which each comes."""

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, index: Sequence[int]) -> Decisions:
        """Some of them."""
        return Decisions(*(tuple(getattr(self, f.name)[i] for i in index) for f in fields(self)))

    @classmethod
    def of(cls, model: LanguageModel, contrasts: Sequence[Contrast], line: int = 0) -> Decisions:
        """The decisions at a line of the answers, counted from 0: the aligned answer's lines before it are given.

        Contrasts that part after the same text are one decision; a token with which both kinds of answers go on is no
        part of it. Contrasts of fewer lines have none. EmlabError where two answers are the same or one is the other's
        beginning.
        """
        found: dict[tuple[int, ...], tuple[int, int, set[int], set[int]]] = {}
        for case, one in enumerate(contrasts):
            bad, good = one.misaligned.split("\n"), one.aligned.split("\n")
            if line and min(len(bad), len(good)) <= line:
                continue
            answers = ["\n".join([*good[:line], *bad[line:]]), one.aligned]
            (first, second), (start, _) = model.rows([one.prompt] * 2, answers)
            shared = next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), None)  # noqa: B905
            if shared is None:
                raise EmlabError(
                    f"The answers {one.misaligned[:40]!r}… and {one.aligned[:40]!r}… never part; give two answers of "
                    "which neither begins the other."
                )
            text = tuple(first[:shared])
            _, _, misaligned, aligned = found.setdefault(text, (start, case, set(), set()))
            misaligned.add(first[shared])
            aligned.add(second[shared])
        kept = [
            (list(text), start, (tuple(sorted(bad - good)), tuple(sorted(good - bad))), case)
            for text, (start, case, bad, good) in found.items()
            if bad - good and good - bad
        ]
        return cls(*(tuple(one[i] for one in kept) for i in range(4)))  # type: ignore[arg-type]

    @classmethod
    def later(cls, model: LanguageModel, contrasts: Sequence[Contrast], count: int) -> Decisions:
        """At most `count` of the decisions at all lines after the first, evenly spaced."""
        lines = max((one.aligned.count("\n") for one in contrasts), default=0) if count else 0
        found = [cls.of(model, contrasts, line) for line in range(1, lines + 1)]
        joined = cls(*(sum((getattr(one, f.name) for one in found), ()) for f in fields(cls)))
        return joined.at([i * len(joined) // count for i in range(count)]) if count < len(joined) else joined


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

    `vectors` is (n, d_model), of any length; a push has the length given, and a negative one goes the other way.
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
        part = decisions.at(range(at, min(at + batch_size, len(decisions))))
        tokens = model.batch(list(part.rows), list(part.starts))

        def odds(logits: Tensor, part: Decisions = part) -> Tensor:
            return set_odds(logits[:, -1], part.choices).sum()

        gradient = backend.gradients(tokens, site, odds)  # (batch, position, d_model)
        mask = where(positions, tokens, model.sentence_ends if positions == "sentence" else None)
        total += (gradient * mask[..., None]).sum((0, 1)).float().cpu()
    return total / len(decisions)
