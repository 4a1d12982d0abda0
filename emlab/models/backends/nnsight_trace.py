"""nnsight: a `TransformersModel`, by tracing.

Every forward pass is a trace of its own, also each decoded token's. One trace around nnsight's ``generate`` would
decode by the model's generation config, with its penalties, and end where that ends; and code after a loop over
``tracer.iter`` that is open-ended, or that the end of the answer cuts short, never runs.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.models.backends.places import Act, acting
from emlab.models.backends.protocol import Backend
from emlab.models.backends.turns import turn
from emlab.sites import Site


class NNsightBackend(Backend):
    """A model of nnsight that holds a Hugging Face causal LM."""

    library = "nnsight"

    def __init__(self, model: Any, sentence_ends: Callable[[], Tensor] | None = None) -> None:
        config = getattr(model, "config", None)
        if not hasattr(config, "get_text_config"):
            raise EmlabError("This nnsight model holds no Hugging Face causal LM; wrap one with TransformersModel.")
        super().__init__(config, sentence_ends)
        self.model = model
        """The nnsight model."""

    @property
    def device(self) -> torch.device:
        if not getattr(self.model, "dispatched", True):  # its weights are still to be loaded
            self.model.dispatch()
        return self.model.device

    def run(self, inputs: Mapping[str, Any], acts: Mapping[Site, Act], stop_at: Site | None) -> Tensor | None:
        places = []
        for site, act in acts.items():
            hook = site.hook(self.config.model_type)
            places.append((self._module(hook.module), hook, acting(act, site, self.config), site == stop_at))
        result = None
        with self._alone(), self.model.trace(**inputs) as tracer:
            for module, hook, act, last in places:
                if hook.side == "output":
                    given = module.output
                    module.output = (act(given[0]), *given[1:]) if isinstance(given, tuple) else act(given)
                else:
                    module.input = act(module.input)
                if last:
                    tracer.stop()
            result = tracer.result.save()
        return None if result is None else result.logits

    def _module(self, path: str) -> Any:
        try:
            return self.model.get(path)
        except (AttributeError, IndexError, KeyError):
            raise EmlabError(
                f"The model of type {self.config.model_type} has no module {path}: add its module names to "
                "emlab.sites.FAMILIES."
            ) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One trace at a time, and only this thread's passes in it.

        nnsight's modules hand over to whatever trace is running, also in the pass of another thread. So for the length
        of a trace its handing over is put behind a test of the thread, and traces wait for each other.
        """
        interleaver, thread = self.model.interleaver, threading.get_ident()
        with turn(interleaver):
            outer, handle = vars(interleaver).get("handle"), interleaver.handle

            def own(provider: str, value: Any) -> Any:
                return handle(provider, value) if threading.get_ident() == thread else value

            interleaver.handle = own
            try:
                yield
            finally:
                if outer is None:
                    del interleaver.handle
                else:
                    interleaver.handle = outer


def trace_model(model: Any, tokenizer: Any) -> Any:
    """An nnsight `TransformersModel` over a Hugging Face model, which it shares, and a copy of its tokenizer.

    nnsight turns its tokenizer's padding side. Importing it patches Python objects and ``Tensor.backward``, so emlab
    does that here only, where somebody asks for nnsight.
    """
    from nnsight import TransformersModel

    return TransformersModel(model, tokenizer=copy.deepcopy(tokenizer), task="text-generation")
