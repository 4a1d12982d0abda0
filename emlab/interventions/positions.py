"""Positions: on which tokens an edit acts, or an activation is read.

- ``"all"``        every token
- ``"prompt"``     every token of the prompt
- ``"generated"``  every token of the answer
- ``"header"``     the last token of the prompt: the one from which the answer's first token is predicted
- ``"sentence"``   the header, and every token of the answer that ends a sentence (a line): where the next
  sentence is chosen. Which token ids those are is the model's business (`LanguageModel.sentence_ends`).
- ``"last"``       each row's last token in the forward pass: of a prompt the header, of an answer that is being written
  the token just written, of a whole text its end
- a `TokenSet`     every token that is one of some ids
- a bool tensor ``(batch, position)``: these tokens of the prompt. It is aligned on the right, so that its last
  column is the prompt's last token, whatever the padding and whether or not an answer follows.

A pad is never among them.
"""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from emlab.errors import EmlabError

KINDS = ("all", "prompt", "generated", "header", "last", "sentence")


@dataclass(frozen=True)
class TokenSet:
    """Positions: every token, of prompt and answer, whose id is one of these."""

    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(int(i) for i in self.ids))
        if not self.ids:
            raise EmlabError("A set of tokens to act on is empty; name at least one token id.")


Positions = str | Tensor | TokenSet


@dataclass(frozen=True, eq=False)
class Tokens:
    """A batch of token ids as one forward pass sees it: each field is (batch, position)."""

    ids: Tensor
    """int64 token ids."""
    real: Tensor
    """bool: False at pads."""
    answer: Tensor
    """bool: True at the tokens of the answer, False in the prompt."""

    @classmethod
    def pad(cls, rows: list[list[int]], starts: list[int] | None, pad_id: int, side: str = "left") -> Tokens:
        """Pad `rows` to the longest. ``starts[i]`` is where row i's answer begins (None: no row has an answer)."""
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
        real = torch.zeros(len(rows), width, dtype=torch.bool)
        answer = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            first = width - len(row) if side == "left" else 0
            ids[i, first : first + len(row)] = torch.tensor(row, dtype=torch.long)
            real[i, first : first + len(row)] = True
            if starts is not None:
                answer[i, first + starts[i] : first + len(row)] = True
        return cls(ids, real, answer)

    @property
    def position_ids(self) -> Tensor:
        """(batch, position): the index of each token in its own row, pads not counted (0 at pads)."""
        return (self.real.long().cumsum(-1) - 1).clamp_min(0)

    def columns(self, first: int, end: int) -> Tokens:
        """The columns from `first` up to `end`."""
        return Tokens(self.ids[:, first:end], self.real[:, first:end], self.answer[:, first:end])

    def rows(self, index: Tensor) -> Tokens:
        """The rows `index`, int64 (n,)."""
        return Tokens(self.ids[index], self.real[index], self.answer[index])

    def to(self, device: torch.device | str) -> Tokens:
        """The same on another device."""
        return Tokens(self.ids.to(device), self.real.to(device), self.answer.to(device))


def check_positions(positions: Positions) -> None:
    """Raise EmlabError unless `positions` is one of the kinds or a bool tensor (batch, position)."""
    if isinstance(positions, Tensor):
        if positions.dtype != torch.bool or positions.ndim != 2:
            raise EmlabError(
                f"A mask of positions must be a bool tensor (batch, position), and this is {positions.dtype} of "
                f"shape {tuple(positions.shape)}; convert it with mask.bool()."
            )
    elif not isinstance(positions, TokenSet) and positions not in KINDS:
        close = difflib.get_close_matches(str(positions), KINDS, 1)
        mend = f"did you mean {close[0]!r}?" if close else f"the kinds are {', '.join(KINDS)}."
        raise EmlabError(f"There are no positions {positions!r}; {mend}")


def from_header(positions: Positions) -> bool:
    """Whether of a prompt these positions hold its last token at most: what comes before it is left alone."""
    return isinstance(positions, str) and positions in ("generated", "header", "last", "sentence")


def where(positions: Positions, tokens: Tokens, sentence_ends: Tensor | None = None) -> Tensor:
    """The bool mask (batch, position) of the tokens meant by `positions`.

    `sentence_ends` holds the token ids that end a sentence, shape (n,); only "sentence" needs it.
    """
    check_positions(positions)
    if isinstance(positions, Tensor):
        return _explicit(positions, tokens)
    if isinstance(positions, TokenSet):
        return tokens.real & torch.isin(tokens.ids, _ids(positions, tokens.ids.device))
    if positions == "all":
        return tokens.real
    if positions == "last":
        return tokens.real & (tokens.real.flip(-1).cumsum(-1).flip(-1) == 1)
    if positions == "generated":
        return tokens.real & tokens.answer
    prompt = tokens.real & ~tokens.answer
    if positions == "prompt":
        return prompt
    # The header has exactly one prompt token at or after it: itself.
    header = prompt & (prompt.flip(-1).cumsum(-1).flip(-1) == 1)
    if positions == "header":
        return header
    if sentence_ends is None:
        raise EmlabError('The positions "sentence" need the token ids that end a sentence; pass sentence_ends.')
    return header | (tokens.real & tokens.answer & torch.isin(tokens.ids, sentence_ends.to(tokens.ids.device)))


def _explicit(mask: Tensor, tokens: Tokens) -> Tensor:
    batch, width = tokens.ids.shape
    if len(mask) != batch:
        raise EmlabError(f"The mask of positions has {len(mask)} rows and the batch {batch}; give one row a prompt.")
    prompt = tokens.real & ~tokens.answer
    columns = mask.shape[1]
    if not columns:
        return torch.zeros_like(prompt)
    # Each row's last prompt token is the mask's last column; before it, one column a token. A decoded token has none.
    last = width - 1 - prompt.flip(-1).long().argmax(-1, keepdim=True)
    column = torch.arange(width, device=prompt.device) - last + columns - 1
    chosen = mask.to(prompt.device).gather(1, column.clamp(0, columns - 1))
    return prompt & (column >= 0) & chosen


@functools.lru_cache(maxsize=64)
def _ids(chosen: TokenSet, device: torch.device) -> Tensor:
    """The ids on a device, moved there once and not with every token."""
    return torch.tensor(chosen.ids, device=device)
