"""The activations that an SAE is trained on and measured on: a model reading documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.data.prompts import prompts_of
from emlab.errors import EmlabError
from emlab.models.wrapping import as_language_model
from emlab.notebook import Shown
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.data import Messages
    from emlab.models import LanguageModel

SINK = 10.0
"""A token whose norm is more than this many times the median is an attention sink and is left out."""


@dataclass(frozen=True, eq=False, repr=False)
class DocumentActivations(Shown):
    """What a site held while a model read documents, one row a token."""

    values: Tensor
    """(tokens, d_model) float32, in the documents' order, on the model's device."""
    site: Site
    model: str
    documents: int
    """How many documents were read."""
    sinks: int
    """Tokens left out for their norm, besides the first of every document."""

    def __str__(self) -> str:
        return f"{len(self.values)} tokens of {self.documents} documents at {self.site} of {self.model}"


def document_activations(
    model: LanguageModel, documents: Sequence[Messages], site: Site, tokens: int, chunk: int = 256
) -> DocumentActivations:
    """Activations of `model` at `site` on `documents`; reading stops when there are enough.

    Left out: pads, each document's first token, and tokens with a norm above 10 times the median, since many models
    keep attention sinks there whose norms (a hundred times the rest) would be all that an SAE sees.

    Args:
        model: The model that reads.
        documents: Chats.
        site: Where to read.
        tokens: The most activations.
        chunk: Documents that are read before it is seen whether there are enough; their tokens share a median.
    """
    model, documents = as_language_model(model), prompts_of(documents)
    found: list[Tensor] = []
    count = read = sinks = 0
    for start in range(0, len(documents), chunk):
        part = documents[start : start + chunk]
        seen = model.activations(part, site, "all")
        values = seen.values[seen.positions > 0]
        norms = values.norm(dim=-1)
        keep = norms <= SINK * norms.median() if len(norms) else norms.bool()
        sinks += int((~keep).sum())
        found.append(values[keep])
        count += len(found[-1])
        read += len(part)
        if count >= tokens:
            break
    if not count:
        raise EmlabError(f"The documents gave no activations of {model.name}; give documents of two tokens or more.")
    return DocumentActivations(torch.cat(found)[:tokens].to(model.device), site, model.name, read, sinks)
