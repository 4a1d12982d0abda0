"""TransformerLens: a `TransformerBridge`, by its own hook points."""

from __future__ import annotations

import copy
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.models.backends.hugging_face import ending
from emlab.models.backends.places import Act, acting
from emlab.models.backends.protocol import Backend, Reached
from emlab.models.backends.turns import turn
from emlab.sites import Site


class LensBackend(Backend):
    """A `TransformerBridge`. Hooks of its owner stay, and act before emlab's."""

    library = "TransformerLens"

    def __init__(self, bridge: Any, sentence_ends: Callable[[], Tensor] | None = None) -> None:
        config = getattr(bridge.original_model, "config", None)
        if not hasattr(config, "get_text_config"):
            raise EmlabError("This bridge holds no Hugging Face model; boot one with boot_transformers.")
        if getattr(bridge, "_weights_processed", False):
            raise EmlabError(
                "This bridge's weights were folded and centred, so its streams are not the model's; boot one without "
                "compatibility mode, or enable that with no_processing=True."
            )
        # It splits joint projections (in GPT-2, GPT-NeoX, Phi-3) into copies that know nothing of an adapter in them.
        joint = [m for m in bridge.original_model.modules() if type(m).__name__.startswith("Joint")]
        if any(hasattr(part, "base_layer") for module in joint for part in module.modules()):
            raise EmlabError(
                "TransformerLens leaves out an unmerged adapter in this model's joint projections; boot the bridge "
                "over the merged model (LanguageModel.merged)."
            )
        super().__init__(config, sentence_ends)
        self.bridge = bridge
        """The `TransformerBridge`."""

    @property
    def device(self) -> torch.device:
        return next(self.bridge.original_model.parameters()).device

    def run(self, inputs: Mapping[str, Any], acts: Mapping[Site, Act], stop_at: Site | None) -> Tensor | None:
        points = self.bridge.hook_dict
        hooks = []
        for site, act in acts.items():
            if site.lens_name not in points:  # the bridge itself says nothing, and the edit would not act
                raise EmlabError(
                    f"The bridge of the {self.config.model_type} model has no hook point {site.lens_name}; choose "
                    "another stream."
                )
            act = acting(act, site, self.config)
            hooks.append((site.lens_name, _hook(ending(act) if site == stop_at else act)))
        given = dict(inputs)
        with turn(self.bridge), self.bridge.hooks(fwd_hooks=hooks):  # it counts its blocks, and not by thread
            try:
                return self.bridge(given.pop("input_ids"), return_type="logits", **given)
            except Reached:
                return None


def boot_bridge(model: Any, tokenizer: Any) -> Any:
    """A `TransformerBridge` over a copy of a Hugging Face model, which itself stays as it is.

    A bridge changes the model that it wraps, looks for the architecture's name in the config, where a model built from
    a config has none, and reads the tokenizer from a folder.
    """
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    own = copy.deepcopy(model)
    own.config.architectures = [type(model).__name__]
    with tempfile.TemporaryDirectory() as folder:
        own.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return TransformerBridge.boot_transformers(
            folder,
            hf_model=own,
            tokenizer=AutoTokenizer.from_pretrained(folder),
            device=str(own.device),
            dtype=own.dtype,
        )


def _hook(act: Act) -> Callable[..., Tensor | None]:
    """`act` as a hook of TransformerLens that leaves other threads' passes alone."""
    thread = threading.get_ident()
    return lambda h, hook: act(h) if threading.get_ident() == thread else None
