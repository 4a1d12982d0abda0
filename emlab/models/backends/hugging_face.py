"""Hugging Face models, by PyTorch hooks: the default, with no further library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from emlab.models.backends.hooks import on_site
from emlab.models.backends.places import Act
from emlab.models.backends.protocol import Backend, Reached
from emlab.sites import Site


class HuggingFaceBackend(Backend):
    """A causal LM of transformers."""

    library = "Hugging Face"

    def __init__(self, model: Any, sentence_ends: Callable[[], Tensor] | None = None) -> None:
        super().__init__(model.config, sentence_ends)
        self.model = model
        """The Hugging Face model."""
        self.language_model: Any | None = None
        """The same with its tokenizer, where that is known."""

    @property
    def device(self) -> torch.device:
        return self.model.device

    def run(self, inputs: Mapping[str, Any], acts: Mapping[Site, Act], stop_at: Site | None) -> Tensor | None:
        with ExitStack() as hooks:
            for site, act in acts.items():
                act = ending(act) if site == stop_at else act
                hooks.callback(on_site(self.model, site, act).remove)
            try:
                return self.model(**inputs).logits
            except Reached:
                return None


def ending(act: Act) -> Act:
    """`act`, and then the end of the pass."""

    def last(h: Tensor) -> Tensor | None:
        act(h)
        raise Reached

    return last
