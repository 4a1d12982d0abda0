"""Which models a monitor belongs to: those of the lineage that it was fitted on, a model and its fine-tunes, no other.

A fine-tune hardly moves the token embeddings, and two models that were trained apart share nothing of them. So a few
hundred of the embeddings' entries tell kin from strangers, whatever was trained and however the adapter is held. Beside
them stand the tokenizer's vocabulary and what its chat template makes of a question: with others, the same prompts are
other tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from emlab import artifacts
from emlab.data.chat import render
from emlab.errors import EmlabError
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.models import LanguageModel

ENTRIES = 256
KIN = 0.9
"""Least correlation of the entries of two models that are kin; of strangers it is 0 ± 0.06."""


@dataclass(frozen=True)
class Lineage:
    """What a model has in common with its fine-tunes."""

    model: str
    """Its name, to speak of it (under an adapter, that of the model below); of a monitor, those it was fitted on."""
    kind: str
    """The architecture: `model_type` of its config."""
    d_model: int
    n_blocks: int
    entries: tuple[float, ...]
    """Entries of the embedding matrix, evenly spaced."""
    vocabulary: str
    """A hash of the tokenizer's tokens and their ids, without added ones: a fine-tune may pad with one of its own."""
    template: str = ""
    """A hash of a question as the chat template writes it; empty where there is none, and in older files."""

    @classmethod
    def of(cls, model: LanguageModel) -> Lineage:
        """That of `model`."""
        weight = model.model.get_input_embeddings().weight.detach().reshape(-1)
        # Not a divisor of the width, so that the entries are not all of a few columns.
        step = max(1, len(weight) // ENTRIES)
        step -= 1 if step > 2 and step % model.d_model == 0 else 0
        chosen = weight[::step][:ENTRIES].float().cpu()
        return cls(
            model.base.name,
            model.model.config.model_type,
            model.d_model,
            model.n_blocks,
            tuple(map(float, chosen.tolist())),
            _vocabulary(model.tokenizer),
            _template(model.tokenizer),
        )

    def check(self, other: Lineage, site: Site | None = None) -> None:
        """EmlabError unless `other` is of the same lineage, with the same tokenizer, and has the site."""
        where = "" if site is None else f" at {site}"
        if other.d_model != self.d_model:
            raise EmlabError(
                f"The monitor reads {self.d_model} dimensions{where} of the lineage of {self.model}, and {other.model} "
                f"has {other.d_model}; fit one for it."
            )
        if (other.kind, other.n_blocks) != (self.kind, self.n_blocks) or len(other.entries) != len(self.entries):
            raise EmlabError(
                f"The monitor was fitted on {self.model}, a {self.kind} of {self.n_blocks} blocks, and {other.model} "
                f"is a {other.kind} of {other.n_blocks}; fit one for it."
            )
        if self.entries != other.entries and not self._likeness(other) >= KIN:
            raise EmlabError(
                f"The monitor is of the lineage of {self.model}, and {other.model} is no fine-tune of it (their "
                f"embeddings have a correlation of {self._likeness(other):.2f}); fit one for it."
            )
        if other.vocabulary != self.vocabulary:
            raise EmlabError(
                f"The monitor was fitted on {self.model}, and {other.model} has another tokenizer (their vocabularies "
                "differ), so it reads other tokens; give it their tokenizer, or fit a monitor for it."
            )

        if self.template and other.template and other.template != self.template:
            raise EmlabError(
                f"The monitor was fitted on {self.model}, and the chat template of {other.model} writes a question "
                "differently, so it reads other tokens; load it with their chat template (chat_template=), or fit a "
                "monitor for it."
            )

    def _likeness(self, other: Lineage) -> float:
        mine, theirs = np.array(self.entries), np.array(other.entries)
        mine, theirs = mine - mine.mean(), theirs - theirs.mean()
        lengths = float(np.linalg.norm(mine) * np.linalg.norm(theirs))
        return float(mine @ theirs) / lengths if lengths else 0.0


@lru_cache(maxsize=16)  # a large vocabulary takes a while, and answers may be watched one by one
def _vocabulary(tokenizer: Any) -> str:
    added = tokenizer.get_added_vocab()
    return artifacts.content_hash({token: i for token, i in tokenizer.get_vocab().items() if token not in added})


def _template(tokenizer: Any) -> str:
    try:
        return artifacts.content_hash(render(tokenizer, [{"role": "user", "content": "Why?"}], header=True))
    except (EmlabError, ValueError):  # it has none, or none that can be asked so
        return ""
