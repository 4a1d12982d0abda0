"""How likely some tokens are over others after given texts, under many edits at once, each row of a batch with its own.

An edit that acts from the assistant's header on leaves the prompt before it alone, and one at a site leaves the blocks
below it alone. Both are computed once for each text, however many edits are tried on it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.interventions import Edit, Tokens, from_header, rows_of
from emlab.models.backends.hooks import edited
from emlab.models.cache import in_place_cache
from emlab.models.logits import columns_from
from emlab.models.resuming import read_below, resumed, shared_site

if TYPE_CHECKING:
    from emlab.models.language_model import LanguageModel


@torch.inference_mode()
def forced_odds(
    lm: LanguageModel,
    rows: Sequence[list[int]],
    starts: Sequence[int],
    choices: Sequence[tuple[Sequence[int], Sequence[int]]],
    edits: Sequence[Edit] = (),
    times: int = 1,
    batch_size: int = 512,
) -> Tensor:
    """The log-odds of some next tokens over others after each text, in nats, float32 (times, texts) on the CPU.

    `rows` are the texts' token ids, of which those from `starts` on are the assistant's answer so far; `choices` the
    tokens for each text, and those that they are held against. The whole list of texts is read `times` times over; an
    edit of one row a text has ``times * texts`` rows, all texts under the first edit first. EmlabError where there is
    no text or no choice, or an edit has another number of rows.
    """
    n = len(rows)
    if not n or len(choices) != n or not all(a and b for a, b in choices):
        raise EmlabError(f"There are {n} texts and {len(choices)} choices; give tokens of both kinds for each text.")
    chosen = rows_of(edits, torch.arange(times * n), times * n)
    tokens = lm.batch(list(rows), list(starts))
    width = tokens.ids.shape[1]
    answers = max(len(row) - start for row, start in zip(rows, starts, strict=True))
    first = max(0, width - answers - 1) if all(from_header(e.positions) for e in chosen) else 0
    site = shared_site([e.site for e in chosen])
    cache = in_place_cache(lm.model.config, width)
    if first:
        _logits(lm, tokens, cache, 0, first)
    below = None
    if site is not None:
        below = read_below(lm.model, site, lambda: _logits(lm, tokens, copy.deepcopy(cache), first, width))

    found = torch.empty(times, n)
    at_once = max(1, batch_size // n) * n
    for at in range(0, times * n, at_once):
        index = torch.arange(at, min(at + at_once, times * n), device=lm.device)
        of = index % n
        own = copy.deepcopy(cache)
        if first:
            own.batch_select_indices(of)
        part = tokens.rows(of)
        with edited(lm.model, rows_of(chosen, index, times * n), lambda: lm.sentence_ends) as editor:
            editor.see(part.columns(first, width))
            with nullcontext() if below is None else resumed(lm.model, below.rows(of)):
                logits = _logits(lm, part, own, first, width)
        found[at // n : at // n + len(index) // n] = set_odds(logits, choices).reshape(-1, n).cpu()
    return found


def set_odds(logits: Tensor, choices: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Tensor:
    """(batch,): the log-odds of some tokens over others, by logits (batch, vocabulary).

    The rows of the batch are those of `choices`, over and over.
    """
    sides = []
    for side in zip(*choices, strict=True):
        widest = max(map(len, side))
        # A token given twice would count twice, so shorter lists are filled up with what is masked.
        ids = torch.tensor([[*tokens, *[tokens[0]] * (widest - len(tokens))] for tokens in side], device=logits.device)
        own = torch.tensor([[i < len(tokens) for i in range(widest)] for tokens in side], device=logits.device)
        times = len(logits) // len(ids)
        chosen = logits.gather(1, ids.repeat(times, 1)).float()
        sides.append(chosen.masked_fill(~own.repeat(times, 1), -torch.inf).logsumexp(-1))
    return sides[0] - sides[1]


def _logits(lm: LanguageModel, tokens: Tokens, cache: Any, first: int, end: int) -> Tensor:
    """The logits (batch, vocabulary) after the columns from `first` to `end`, those before being in the cache."""
    return lm.model(
        input_ids=tokens.ids[:, first:end],
        attention_mask=tokens.real[:, :end].long(),
        position_ids=tokens.position_ids[:, first:end],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=columns_from(-1, tokens.ids[:, first:end]),
    ).logits[:, -1]
