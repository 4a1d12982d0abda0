"""Reading a model without sampling: the activations of a site, and logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emlab.data.prompts import Prompt, prompts_of
from emlab.errors import EmlabError
from emlab.interventions import Edit, Positions, Tokens, rows_of, where
from emlab.models.backends.hooks import caught, edited
from emlab.models.token_model import TokenModel
from emlab.notebook import Shown
from emlab.sites import Site


@dataclass(frozen=True, eq=False, repr=False)
class Activations(Shown):
    """What a site held on n tokens, in the order of the prompts and, within each, of its tokens. All on the CPU."""

    values: Tensor
    """(n, d_model) float32."""
    rows: Tensor
    """(n,) int64: which prompt the token is of."""
    positions: Tensor
    """(n,) int64: the token's index in its prompt and answer, pads not counted."""
    tokens: Tensor
    """(n,) int64: the token's id."""
    site: Site

    def __len__(self) -> int:
        return len(self.values)

    def __str__(self) -> str:
        return f"{len(self)} activations of width {self.values.shape[1]} at {self.site}"


def activations(
    lm: TokenModel,
    prompts: Sequence[Prompt],
    site: Site,
    positions: Positions,
    answers: Sequence[str] | None,
    edits: Sequence[Edit],
    batch_size: int,
) -> Activations:
    """See `LanguageModel.activations`."""
    prompts = prompts_of(prompts)
    if not len(prompts):
        raise EmlabError("There are no prompts to read activations on; give at least one.")
    rows, starts = lm.rows(prompts, answers)
    found: list[tuple[Tensor, ...]] = []
    ends = lm.sentence_ends if isinstance(positions, str) and positions == "sentence" else None
    for index, tokens, chosen in _batches(lm, rows, starts, edits, batch_size):
        at = positions[index.cpu()] if isinstance(positions, Tensor) else positions
        mask = where(at, tokens, ends)
        with torch.no_grad(), edited(lm.model, chosen, lambda: lm.sentence_ends) as editor:
            editor.see(tokens)
            with caught(lm.model, site) as seen:
                _forward(lm, tokens)
        of_row = index[:, None].expand(mask.shape)[mask.cpu()]
        read = (seen[0][mask].float(), of_row, tokens.position_ids[mask], tokens.ids[mask])
        found.append(tuple(tensor.cpu() for tensor in read))
    values, of, place, ids = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = torch.argsort(of, stable=True)  # rows were taken by length; within a row the order is right already
    return Activations(values[order], of[order], place[order], ids[order], site)


def logits(
    lm: TokenModel, prompts: Sequence[Prompt], answers: Sequence[str] | None, edits: Sequence[Edit]
) -> list[Tensor]:
    """See `LanguageModel.logits`."""
    tokens = lm.batch(*lm.rows(prompts, answers))
    with torch.no_grad(), edited(lm.model, edits, lambda: lm.sentence_ends) as editor:
        editor.see(tokens)
        out = _forward(lm, tokens).logits
    return [row[real].float().cpu() for row, real in zip(out, tokens.real, strict=True)]


def _forward(lm: TokenModel, tokens: Tokens) -> Any:
    return lm.model(
        input_ids=tokens.ids, attention_mask=tokens.real.long(), position_ids=tokens.position_ids, use_cache=False
    )


def _batches(
    lm: TokenModel, rows: list[list[int]], starts: list[int], edits: Sequence[Edit], batch_size: int
) -> Iterator[tuple[Tensor, Tokens, list[Edit]]]:
    """Batches of rows of like length: which rows (n,), their tokens, and the edits for them."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for first in range(0, len(order), batch_size):
        pick = order[first : first + batch_size]
        index = torch.tensor(pick)
        tokens = lm.batch([rows[i] for i in pick], [starts[i] for i in pick])
        yield index, tokens, rows_of(edits, index, len(rows))
