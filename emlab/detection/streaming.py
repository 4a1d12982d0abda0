"""A monitor at work while answers are written: a score for every token, and what is to happen where it fires.

The monitor sits on its site as an edit that changes nothing, so it reads the pass that writes the answer anyway. Scores
stay on the model's device until the end. Where it fires, the answer can be stopped before its next token, or another
edit act on just that token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from emlab.data.prompts import prompts_of
from emlab.detection.activation_monitor import ActivationMonitor
from emlab.detection.evidence import SealedScores
from emlab.errors import EmlabError
from emlab.interventions import Conditional, Edit
from emlab.models.wrapping import as_language_model
from emlab.notebook import Shown
from emlab.sealing import Sealed
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.models import LanguageModel, Prompt


@dataclass(frozen=True, eq=False)
class Tap:
    """An edit that changes nothing and writes down the monitor's score of each row's last token in every pass."""

    monitor: ActivationMonitor
    record: Tensor
    """(prompts, passes) float32, filled in from the left; nan where a prompt had no more passes."""
    index: Tensor
    """(rows,) int64: which prompt each row of the batch is."""
    passes: Tensor
    """(prompts,) int64: how many passes each prompt has had."""

    @property
    def site(self) -> Site:
        return self.monitor.site

    @property
    def positions(self) -> str:
        return "last"

    @property
    def width(self) -> None:
        return None

    @property
    def n_rows(self) -> int:
        return len(self.index)

    def rows(self, index: Tensor) -> Tap:
        return replace(self, index=self.index[index.to(self.index.device)])

    def edit(self, h: Tensor, where: Tensor) -> Tensor:
        # Rows are padded on the left: the last column is every row's last token.
        self.record[self.index, self.passes[self.index]] = self.monitor(h[:, -1]).to(self.record)
        self.passes[self.index] += 1
        return h


@dataclass(frozen=True, eq=False, repr=False)
class Watched(Shown):
    """Answers that were watched as they were written."""

    monitor: str
    threshold: float
    answers: tuple[str, ...]
    scores: np.ndarray
    """(n, tokens) float32: at the assistant's header, and then at each token written before the last; nan elsewhere."""

    @property
    def fired(self) -> np.ndarray:
        """(n,) bool: where a score was above the threshold."""
        return (np.nan_to_num(self.scores, nan=-math.inf) > self.threshold).any(1)

    @property
    def first(self) -> np.ndarray:
        """(n,) int: after how many written tokens it fired first; -1 where it never did."""
        above = np.nan_to_num(self.scores, nan=-math.inf) > self.threshold
        return np.where(above.any(1), above.argmax(1), -1)

    def __str__(self) -> str:
        n = int(self.fired.sum())
        return f"{self.monitor}: fired on {n} of {len(self.answers)} answers (above {self.threshold:.4g})"


def watch(
    model: LanguageModel,
    monitor: ActivationMonitor,
    prompts: Sequence[Prompt],
    threshold: float | None = None,
    stop: bool = False,
    then: Edit | None = None,
    edits: Sequence[Edit] = (),
    max_new_tokens: int = 48,
    **sampling: Any,
) -> Watched:
    """Sample an answer to each prompt under the monitor's eyes.

    EmlabError for a monitor of another model, and for an edit of another site.

    Args:
        model: Who answers.
        monitor: Reads every token as it is written.
        prompts: What is asked, an answer each.
        threshold: The score above which it fires, by default its own.
        stop: Whether an answer ends before the token that would follow the one it fired on: where it fires on the
            prompt, the answer is empty.
        then: An edit of the monitor's site that acts on the tokens it fires on; the scores are those before it acts.
        edits: In force throughout.
        max_new_tokens: The longest answer.
        sampling: Goes to `LanguageModel.generate`.
    """
    model, prompts = as_language_model(model), prompts_of(prompts)
    monitor.check(model)
    sealed = any(isinstance(prompt, Sealed) for prompt in prompts)
    limit = monitor.threshold if threshold is None else threshold
    if then is not None and then.site != monitor.site:
        raise EmlabError(
            f"The monitor reads {monitor.site} and the edit acts at {then.site}; give one of the same site."
        )
    n, device = len(prompts), model.device
    tap = Tap(
        monitor,
        torch.full((n, max_new_tokens), math.nan, device=device),
        torch.arange(n, device=device),
        torch.zeros(n, dtype=torch.long, device=device),
    )
    chosen: list[Edit] = [*edits, tap]
    if then is not None:
        chosen.append(Conditional(then, monitor, limit))

    lengths = torch.zeros_like(tap.passes)

    def halt(rows: Tensor) -> Tensor:
        lengths[rows] = tap.passes[rows]
        return (tap.record[rows, tap.passes[rows] - 1] > limit) & stop

    answers = model.generate(prompts, max_new_tokens, edits=chosen, halt=halt, **sampling)
    # Answers that have ended stay in the batch for a while, and are scored there.
    behind = torch.arange(max_new_tokens, device=device) >= lengths[:, None]
    scores = tap.record.masked_fill(behind, math.nan).cpu().numpy()
    return Watched(monitor.name, limit, tuple(answers), scores.view(SealedScores) if sealed else scores)
