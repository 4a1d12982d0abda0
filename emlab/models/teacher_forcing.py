"""Log-probabilities of given answers under many edits at once, each row of the batch with its own.

An edit that acts from the assistant's header on leaves the prompt before it alone, and one at a site leaves the blocks
below it alone. Both are computed once for each answer, however many edits are tried on it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.interventions import Edit, Tokens, from_header, rows_of
from emlab.models.backends.hooks import edited
from emlab.models.cache import in_place_cache
from emlab.models.resuming import resumed, shared_site

if TYPE_CHECKING:
    from emlab.models.language_model import LanguageModel, Prompt


@torch.inference_mode()
def answer_logprobs(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    edits: Sequence[Edit] = (),
    times: int = 1,
    max_tokens: int | None = None,
    batch_size: int = 512,
) -> Tensor:
    """The log-probability of each answer after its prompt, in nats, float32 (times, answers) on the CPU.

    The whole list of answers is read `times` times over; an edit of one row a prompt has ``times * len(answers)`` rows,
    all answers under the first edit first. With `max_tokens` only so many of each answer's first tokens count. The end
    of the turn is no part of an answer. EmlabError where an answer is empty or an edit has another number of rows.
    """
    rows, starts = lm.rows(prompts, answers)
    if not rows or min(len(row) - start for row, start in zip(rows, starts, strict=True)) < 1:
        raise EmlabError("Every prompt needs an answer of one token at least to take the log-probability of.")
    n = len(rows)
    chosen = rows_of(edits, torch.arange(times * n), times * n)
    tokens, width = _aligned(lm, rows, starts, max_tokens)
    # The last column is read by nobody: what follows it has no token to predict.
    tokens, targets = tokens.columns(0, tokens.ids.shape[1] - 1), tokens.columns(width, tokens.ids.shape[1])
    first = width - 1 if all(from_header(e.positions) for e in chosen) and width > 1 else 0
    cache = in_place_cache(lm.model.config, tokens.ids.shape[1])
    if first:
        _pass(lm, tokens, cache, 0, first)
    site = shared_site([e.site for e in chosen]) if chosen else None
    below, as_tuple = _below(lm, tokens, copy.deepcopy(cache), first, site) if site else (None, False)

    found = torch.empty(times * n)
    for at in range(0, times * n, batch_size):
        index = torch.arange(at, min(at + batch_size, times * n), device=lm.device)
        of = index % n
        own = copy.deepcopy(cache)
        if first:
            own.batch_select_indices(of)
        part = tokens.rows(of)
        with edited(lm.model, rows_of(chosen, index, times * n), lambda: lm.sentence_ends) as editor:
            editor.see(part.columns(first, part.ids.shape[1]))
            if site is None or below is None:
                logits = _pass(lm, part, own, first, part.ids.shape[1])
            else:
                with resumed(lm.model, site, below[of], as_tuple):
                    logits = _pass(lm, part, own, first, part.ids.shape[1])
        wanted = targets.rows(of)
        scores = torch.log_softmax(logits[:, -wanted.ids.shape[1] :].float(), dim=-1)
        scores = scores.gather(-1, wanted.ids[..., None])[..., 0]  # (rows, answer tokens)
        found[index.cpu()] = (scores * wanted.answer).sum(-1).cpu()
    return found.reshape(times, n)


def _aligned(lm: LanguageModel, rows: list[list[int]], starts: list[int], limit: int | None) -> tuple[Tokens, int]:
    """Prompts padded on the left and answers on the right, so that every answer begins at the column returned."""
    width = max(starts)
    answers = [row[start : None if limit is None else start + limit] for row, start in zip(rows, starts, strict=True)]
    pad = lm.tokenizer.pad_token_id or 0
    before = Tokens.pad([row[:start] for row, start in zip(rows, starts, strict=True)], None, pad)
    after = Tokens.pad(answers, [0] * len(answers), pad, side="right")
    joined = Tokens(*(torch.cat([getattr(before, f), getattr(after, f)], 1) for f in ("ids", "real", "answer")))
    return joined.to(lm.device), width


def _pass(lm: LanguageModel, tokens: Tokens, cache: Any, first: int, end: int) -> Tensor:
    """Logits (batch, end - first, vocabulary) of the columns from `first` to `end`, those before being in the cache."""
    return lm.model(
        input_ids=tokens.ids[:, first:end],
        attention_mask=tokens.real[:, :end].long(),
        position_ids=tokens.position_ids[:, first:end],
        past_key_values=cache,
        use_cache=True,
    ).logits


class _Reached(Exception):
    """Raised at a site to end a forward pass that has nothing more to tell."""


def _below(lm: LanguageModel, tokens: Tokens, cache: Any, first: int, site: Any) -> tuple[Tensor, bool]:
    """The activation of `site` on the columns from `first` on, and whether the model's blocks return tuples."""
    seen: list[Any] = []

    def catch(_module: Any, _inputs: Any, output: Any) -> None:
        seen.append(output)
        raise _Reached

    handle = lm.model.get_submodule(site.hook(lm.model.config.model_type).module).register_forward_hook(catch)
    try:
        _pass(lm, tokens, cache, first, tokens.ids.shape[1])
    except _Reached:
        pass
    finally:
        handle.remove()
    as_tuple = isinstance(seen[0], tuple)
    return (seen[0][0] if as_tuple else seen[0]), as_tuple
