"""Sampling answers in large batches, each batch with its key-value cache."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from emlab.data.prompts import Prompt, prompts_of
from emlab.data.thoughts import opens_thoughts
from emlab.errors import EmlabError
from emlab.interventions import Edit, Tokens, from_header, rows_of
from emlab.models.answer_text import answer_texts
from emlab.models.backends.hooks import edited
from emlab.models.cache import LEAST_LEAD, WHOLE, common_start, in_place_cache
from emlab.models.logits import columns_from
from emlab.models.token_model import TokenModel

Done = Callable[[Mapping[int, str]], None]
"""Is called with answers, by the numbers of their prompts, as soon as they are there: each once."""


class Written(NamedTuple):
    """What a model wrote."""

    text: str
    """The answer, after its thoughts between marks where it wrote some."""
    cut: bool
    """Whether the limit of tokens ended it."""


Halt = Callable[[Tensor], Tensor]
"""From the numbers (n,) of the prompts being answered to whether (n,) their answers end before their next token."""

_DROP_AT = 0.75
"""Finished rows leave the batch once no more than this share of it is still being written."""


def write(
    lm: TokenModel,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    temperature: float,
    seed: int | Sequence[int],
    batch_size: int,
    edits: Sequence[Edit],
    top_p: float,
    progress: bool,
    done: Callable[[Mapping[int, Written]], None] | None = None,
    halt: Halt | None = None,
) -> list[Written]:
    """What the model writes after each prompt; the arguments are those of `LanguageModel.generate`."""
    if temperature < 0 or not 0 < top_p <= 1 or max_new_tokens < 1:
        raise EmlabError(
            f"Sampling needs temperature >= 0, 0 < top_p <= 1 and max_new_tokens >= 1, and got {temperature}, {top_p} "
            f"and {max_new_tokens}."
        )
    rows = _rows(lm, prompts)
    _check_length(lm, rows, max_new_tokens)
    draws = _draws(seed, len(rows), max_new_tokens)
    opened = _opened(lm, rows)
    # Equal prompts come into one batch, where they are read once, and short ones are not padded to long ones.
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), rows[i]))
    answers: dict[int, Written] = {}
    written, began = 0, time.perf_counter()
    with tqdm(total=len(rows), desc=f"asking {lm.name}", unit="answer", disable=not progress, leave=False) as bar:
        for first in range(0, len(rows), batch_size):
            here = order[first : first + batch_size]
            index = torch.tensor(here)
            chosen = rows_of(edits, index, len(rows))

            def ready(finished: Mapping[int, list[int]], here: list[int] = here) -> None:
                nonlocal written
                texts = answer_texts(lm.tokenizer, list(finished.values()))
                new = {
                    here[i]: Written(opened[here[i]] + text, len(ids) == max_new_tokens)
                    for (i, ids), text in zip(finished.items(), texts, strict=True)
                }
                answers.update(new)
                if done is not None and new:
                    done(new)
                written += sum(map(len, finished.values()))
                bar.set_postfix_str(f"{written / (time.perf_counter() - began):,.0f} tokens/s", refresh=False)
                bar.update(len(finished))

            def halts(at: Tensor, index: Tensor = index) -> Tensor:
                assert halt is not None
                return halt(index.to(at.device)[at])

            part, ends = [rows[i] for i in here], halts if halt is not None else None
            _answer(lm, part, draws[index].to(lm.device), chosen, temperature, top_p, ready, halt=ends)
    return [answers[i] for i in range(len(rows))]


def _rows(lm: TokenModel, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The token ids of each prompt. A text or chat that comes again, as with many edits, is tokenized once."""
    known: dict[str, list[int]] = {}
    rows = []
    for prompt in prompts_of(prompts):
        is_chat = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], dict)
        if isinstance(prompt, str) or is_chat:
            key = json.dumps(prompt, default=str)
            if key not in known:
                known[key] = lm.prompt_ids(prompt)
            rows.append(known[key])
        else:
            rows.append(lm.prompt_ids(prompt))
    return rows


def _opened(lm: TokenModel, rows: Sequence[list[int]]) -> list[str]:
    """The mark of the thoughts that each prompt ends within; mostly none."""
    ends = [tuple(row[-16:]) for row in rows]  # a mark of many tokens, and the newlines after it
    marks = {end: opens_thoughts(lm.tokenizer.decode(list(end))) for end in set(ends)}
    return [marks[end] for end in ends]


def generate_ids(
    lm: TokenModel,
    rows: Sequence[list[int]],
    max_new_tokens: int,
    temperature: float,
    seed: int,
    batch_size: int = 512,
) -> list[list[int]]:
    """One sampled answer a prompt as token ids, with the token that ends it where it ended; what training samples.

    `rows` are the prompts' token ids. Draws are as in `LanguageModel.generate` under the same seed.
    """
    _check_length(lm, rows, max_new_tokens)
    draws = _draws(seed, len(rows), max_new_tokens).to(lm.device)
    found: list[list[int]] = []
    for first in range(0, len(rows), batch_size):
        part = slice(first, first + batch_size)
        found += _answer(lm, list(rows[part]), draws[part], (), temperature, 1.0, with_end=True)
    return found


def _check_length(lm: TokenModel, rows: Sequence[list[int]], max_new_tokens: int) -> None:
    longest = max((len(row) for row in rows), default=0) + max_new_tokens
    if lm.max_positions is not None and longest > lm.max_positions:
        raise EmlabError(
            f"A prompt and {max_new_tokens} new tokens make {longest} tokens and {lm.name} takes {lm.max_positions}; "
            "shorten the prompt or lower max_new_tokens."
        )


def _draws(seed: int | Sequence[int], rows: int, steps: int) -> Tensor:
    """(rows, steps) float32, uniform in [0, 1): each row from a stream of its own, the same for more rows or steps."""
    if isinstance(seed, int):
        keys = [(seed % 2**64, i + 1) for i in range(rows)]
    elif len(seed) == rows:
        keys = [(s % 2**64, 0) for s in seed]
    else:
        raise EmlabError(f"There are {len(seed)} seeds for {rows} prompts; give one seed, or one for each prompt.")
    streams = [
        np.random.Generator(np.random.Philox(key=key)).random(steps, dtype=np.float32)
        for key in np.array(keys, np.uint64)
    ]
    return torch.from_numpy(np.stack(streams)) if streams else torch.empty(0, steps)


@torch.inference_mode()
def _answer(
    lm: TokenModel,
    rows: list[list[int]],
    draws: Tensor,
    edits: Sequence[Edit],
    temperature: float,
    top_p: float,
    ready: Callable[[Mapping[int, list[int]]], None] | None = None,
    with_end: bool = False,
    halt: Halt | None = None,
) -> list[list[int]]:
    """The answers' token ids, the token that ends each only `with_end`. `draws` (batch, steps): uniform in [0, 1).

    `halt` is asked with numbers in the batch. `ready` is called with answers, by their number in the batch, as they
    leave it: each once.
    """
    batch, steps = draws.shape
    stops = torch.tensor(lm.stop_ids, device=lm.device)
    # A question asked many times is read once, as far as no row has an edit of its own there.
    own = [e for e in edits if e.n_rows is not None]
    late = all(from_header(e.positions) for e in own)
    asked = [list(row) for row in dict.fromkeys(map(tuple, rows))] if late else rows
    number = {tuple(row): i for i, row in enumerate(asked)}
    repeat = torch.tensor([number[tuple(row)] for row in rows], device=lm.device)
    whole = getattr(lm.model, WHOLE, False) or not all(from_header(e.positions) for e in edits)
    lead = 0 if whole else _lead(asked)
    tokens = lm.batch([row[lead:] for row in asked])
    width = lead + tokens.ids.shape[1]
    cache = in_place_cache(lm.model.config, width + steps)
    seen = torch.ones(len(asked), width + steps, dtype=torch.long, device=lm.device)
    seen[:, lead:width] = tokens.real
    lengths = lead + tokens.real.sum(-1)
    # Where the edits of single rows begin at the header, all before it is read once a question.
    shared = width - 1 if own and late and len(asked) < batch and int(lengths.min()) > lead + 1 else lead

    def read(now: Tokens, first: int) -> Tensor:
        """The logits (batch, vocabulary) after these tokens, which stand in the columns from `first` on."""
        editor.see(now)
        return lm.model(
            input_ids=now.ids,
            attention_mask=seen[: len(now.ids), : first + now.ids.shape[1]],
            position_ids=now.position_ids + first if first <= lead else (lengths - width + first)[:, None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=columns_from(-1, now.ids),
        ).logits[:, -1]

    if lead:
        with edited(lm.model, (), lambda: lm.sentence_ends) as editor:
            read(lm.batch([asked[0][:lead]]), 0)
        cache.batch_select_indices(torch.zeros(len(asked), dtype=torch.long, device=lm.device))
    if shared > lead:
        # Nor do others that begin there act on what comes before it.
        early = [e for e in edits if not from_header(e.positions)]
        with edited(lm.model, early, lambda: lm.sentence_ends) as editor:
            read(tokens.columns(0, shared - lead), lead)
        cache.batch_select_indices(repeat)
        seen, lengths, tokens = seen[repeat], lengths[repeat], tokens.columns(shared - lead, width - lead).rows(repeat)
    with edited(lm.model, edits, lambda: lm.sentence_ends) as editor:
        logits = read(tokens, shared)
        if len(logits) < batch:
            cache.batch_select_indices(repeat)
            seen, lengths, logits = seen[repeat], lengths[repeat], logits[repeat]

        written = torch.zeros(batch, steps, dtype=torch.long, device=lm.device)
        ended = torch.full((batch,), steps, dtype=torch.long, device=lm.device)
        at = torch.arange(batch, device=lm.device)  # which answer each row of the batch is writing
        for step in range(steps):
            token = _choose(logits, draws[at, step], temperature, top_p)
            written[at, step] = token
            stopped = torch.isin(token, stops)
            if halt is not None:
                writing = ended[at] >= step  # some have ended and have not left the batch
                stopped[writing] |= halt(at[writing])
            ended[at] = torch.where(stopped, ended[at].clamp_max(step), ended[at])
            going = ended[at] > step
            left = int(going.sum())
            if left == 0 or step == steps - 1:
                break
            if left <= _DROP_AT * len(at):
                keep = going.nonzero()[:, 0]
                if ready is not None:
                    ready(_cut(written, ended, at[~going].tolist()))
                cache.batch_select_indices(keep)
                editor.keep(keep)
                at, token, seen, lengths = at[keep], token[keep], seen[keep], lengths[keep]
            now = Tokens(token[:, None], torch.ones_like(token[:, None]).bool(), torch.ones_like(token[:, None]).bool())
            logits = read(now, width + step)
    if ready is not None:
        ready(_cut(written, ended, at.tolist()))
    return list(_cut(written, ended + with_end, range(batch)).values())


def _lead(rows: Sequence[list[int]]) -> int:
    """How many tokens all of several rows begin with, where that is worth a pass of its own; each keeps one more."""
    found = min(common_start(rows), min(map(len, rows)) - 1)
    return found if len(rows) > 1 and found >= LEAST_LEAD else 0


def _cut(written: Tensor, ended: Tensor, rows: Sequence[int]) -> dict[int, list[int]]:
    """The tokens (batch, steps) of these rows, each up to where it ended."""
    return {i: written[i, : int(ended[i])].tolist() for i in rows}


def _choose(logits: Tensor, draws: Tensor, temperature: float, top_p: float) -> Tensor:
    """A token id for each row of logits (batch, vocabulary), by the inverse of the distribution function at `draws`."""
    if temperature == 0:
        return logits.argmax(-1)
    p = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p < 1:
        p, order = p.sort(dim=-1, descending=True)
        p = p * (p.cumsum(-1) - p < top_p)  # the likeliest tokens that together reach top_p, the first always
    total = p.cumsum(-1)
    # Just below 1, so that rounding never carries the draw past the last token that has any probability.
    target = draws.clamp_max(1 - 1e-6)[:, None] * total[:, -1:]
    found = torch.searchsorted(total, target, right=True)
    return (order.gather(-1, found) if top_p < 1 else found)[:, 0]
