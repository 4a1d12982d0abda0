"""What an edit costs in ability: the loss on text that has nothing to do with what the edit is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.data.prompts import answers_of, prompts_of
from emlab.errors import EmlabError
from emlab.interventions import Edit
from emlab.models.wrapping import as_language_model
from emlab.sealing import Sealed, SealedLoss

if TYPE_CHECKING:
    from emlab.data import Messages
    from emlab.models import LanguageModel
    from emlab.models.language_model import Prompt


def text_loss(
    model: LanguageModel, chats: Sequence[Messages], edits: Sequence[Edit] = (), batch_size: int = 64
) -> float:
    """Mean cross entropy, in nats a token, of the last answer of each chat, the other turns being read.

    Every token counts the same. A loss on sealed chats is a SealedLoss. EmlabError where there is nothing to
    predict.

    Args:
        model: The model.
        chats: Chats that end in an answer.
        edits: In force while it reads; they must be the same for every row.
        batch_size: Chats in one pass.
    """
    model, chats = as_language_model(model), prompts_of(chats)
    kind = SealedLoss if any(isinstance(chat, Sealed) for chat in chats) else float
    total, count = 0.0, 0
    for at in range(0, len(chats), batch_size):
        part = chats[at : at + batch_size]
        rows, starts = model.rows(part)
        for logits, ids, start in zip(model.logits(part, edits=edits), rows, starts, strict=True):
            answer = torch.tensor(ids[start:])
            if len(answer):
                lost = torch.nn.functional.cross_entropy(logits[start - 1 : -1], answer, reduction="sum")
                total, count = total + float(lost), count + len(answer)
    if not count:
        raise EmlabError("There is no answer to take the loss of; give chats that end in the assistant's turn.")
    return kind(total / count)


def row_losses(
    model: LanguageModel, prompts: Sequence[Prompt], answers: Sequence[str] | None = None, batch_size: int = 64
) -> Tensor:
    """(n,) float32: mean cross entropy, in nats a token, of each answer; without answers, of each prompt.

    A chat that ends in an assistant's turn has an answer of its own. The first token of a prompt is not predicted.
    EmlabError where a row has nothing to predict.
    """
    model, prompts, answers = as_language_model(model), prompts_of(prompts), answers_of(answers)
    found = []
    for at in range(0, len(prompts), batch_size):
        part = prompts[at : at + batch_size]
        said = None if answers is None else answers[at : at + batch_size]
        rows, starts = model.rows(part, said)
        for logits, ids, start in zip(model.logits(part, said), rows, starts, strict=True):
            first = max(start if start < len(ids) else 1, 1)
            if first >= len(ids):
                raise EmlabError("A prompt of one token has nothing to predict; give longer prompts, or answers.")
            found.append(torch.nn.functional.cross_entropy(logits[first - 1 : -1], torch.tensor(ids[first:])))
    return torch.stack(found) if found else torch.empty(0)
