"""Fine-tunes whose weights are made when they are used: many of one base take the memory of two."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from emlab.models.language_model import LanguageModel

_USED: list[weakref.ref[DeferredModel]] = []
"""The two that were used last, the latest at the end; two, as a search goes to and fro between two fine-tunes."""


class DeferredModel(LanguageModel):
    """A model whose weights can be made again at any time, and are held while they are used and shortly after.

    It is only read: what is changed in its weights, hooks included, is lost with them.
    """

    _make: Callable[[], LanguageModel]
    _given: Any = None
    _held: Any = None
    _made: Callable[[], Any] = staticmethod(lambda: None)

    @classmethod
    def of(cls, base: LanguageModel, name: str, make: Callable[[], LanguageModel]) -> DeferredModel:
        """The model called `name`, with the tokenizer of `base`, whose weights are those of what `make` gives."""
        deferred = cls(None, base.tokenizer, name)
        deferred._make = make
        return deferred

    @property
    def model(self) -> Any:
        """The Hugging Face model."""
        if self._given is not None:  # a copy that was given weights of its own
            return self._given
        others = [one for ref in _USED if (one := ref()) is not None and one is not self]
        for other in others[:-1]:
            other._held = None  # before new ones are made, or three would be held for a while
        if self._held is None:
            self._held = self._made()  # somebody may use them still
        if self._held is None:
            self._held = self._make().model
            self._made = weakref.ref(self._held)
        _USED[:] = [weakref.ref(one) for one in (*others[-1:], self)]
        return self._held

    @model.setter
    def model(self, given: Any) -> None:
        self._given = given
