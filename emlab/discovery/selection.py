"""Which tokens a model is read on, by name, and the checks that two models read the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emlab.data.chat import encode_text, render
from emlab.data.prompts import prompts_of
from emlab.errors import EmlabError
from emlab.interventions import Positions, TokenSet, check_positions

if TYPE_CHECKING:
    from emlab.models import LanguageModel
    from emlab.models.language_model import Prompt

ASSISTANT_HEADER = "assistant_header"
"""Every token that the chat template puts between the user's turn and the answer, "header" being the last of them."""

SELECTIONS = ("header", ASSISTANT_HEADER, "prompt", "generated", "sentence", "last", "all")
"""The names that `select` takes. header: the prompt's last token; prompt: all of it; generated: the assistant's."""


def select(model: LanguageModel, prompts: Sequence[Prompt], positions: Positions) -> Positions:
    """`positions` as `LanguageModel.activations` takes them: "assistant_header" becomes a mask of these prompts."""
    if isinstance(positions, str) and positions == ASSISTANT_HEADER:
        return header_mask(model, prompts)
    check_positions(positions)
    return positions


def header_mask(model: LanguageModel, prompts: Sequence[Prompt]) -> Tensor:
    """(prompts, position) bool, aligned on the right: the tokens that the template adds so that the answer begins.

    EmlabError for a prompt of bare token ids, in which no header can be told.
    """
    lengths = []
    for prompt in prompts_of(prompts):
        messages: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if not isinstance(messages, Sequence) or not isinstance(messages[-1], Mapping):
            raise EmlabError("A prompt of token ids has no assistant's header; read it at 'header', its last token.")
        whole = render(model.tokenizer, messages, header=True)
        added = whole.removeprefix(render(model.tokenizer, messages, header=False))
        lengths.append(len(encode_text(model.tokenizer, added)))
    if 0 in lengths:
        raise EmlabError(f"The chat template of {model.name} puts no header before the answer; read 'header' instead.")
    width = max(lengths)
    return torch.arange(width) >= width - torch.tensor(lengths)[:, None]


def part(positions: Positions, index: Sequence[int]) -> Positions:
    """The positions for some of the prompts."""
    return positions[torch.as_tensor(index)] if isinstance(positions, Tensor) else positions


def described(positions: Positions) -> str:
    """The positions in a word."""
    if isinstance(positions, Tensor):
        return f"a mask of {int(positions.sum())} tokens"
    if isinstance(positions, TokenSet):
        return f"tokens {', '.join(map(str, positions.ids))}"
    return positions


def check_same_tokens(
    first: LanguageModel, others: Sequence[LanguageModel], prompts: Sequence[Prompt], answers: Sequence[str] | None
) -> None:
    """EmlabError unless all models read the prompts and answers as the same tokens."""
    rows = first.rows(prompts, answers)
    for other in others:
        if other is not first and other.rows(prompts, answers) != rows:
            raise EmlabError(
                f"{first.name} and {other.name} make different tokens of the same prompts: compare models that share a "
                "tokenizer and a chat template."
            )
