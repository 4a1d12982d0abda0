"""LoRA adapters in force on a model: unmerged, over weights that are the base's own.

An adapter's layers (Hu et al. 2021, arXiv:2106.09685) go into a second tree of modules whose weights are the very
tensors of the base. So a base and any number of adapters are in one process for the memory of one, and each of them is
a model by itself: nothing that is done to one, hooks included, is seen by another, and the base's modules are never
touched. Every module that emlab names keeps its path, as peft puts its layers in the place of single projections.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.models.loading import check_weights, first_line

_OF_THE_FILE = ("base_model_name_or_path", "revision", "inference_mode")
"""Entries of an adapter's config that say where it came from and nothing of what it does."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter in force on a LanguageModel."""

    name: str
    """What to call it in tables."""
    tuned: Any
    """peft's model around `LanguageModel.model`."""

    def digest(self) -> str:
        """A hash of its settings, of what the weights do not say: how their product is scaled, for one."""
        settings = {k: v for k, v in self.tuned.peft_config["default"].to_dict().items() if k not in _OF_THE_FILE}
        plain = json.dumps(settings, sort_keys=True, default=lambda v: sorted(v) if isinstance(v, set) else str(v))
        return hashlib.sha256(plain.encode()).hexdigest()


def name_of(adapter: str | Path) -> str:
    """What to call an adapter: its folder's name, or that of the run for the folder ``adapter`` of a run."""
    path = artifacts.place(adapter).resolve()
    return path.parent.name if path.name == "adapter" else path.name


def sharing(model: nn.Module) -> Any:
    """A tree of modules of its own over the very parameters and buffers of `model`."""
    kept: list[Any] = [*model.parameters(), *model.buffers()]
    # bitsandbytes keeps what belongs to its quantised weights beside them, in objects that are no modules.
    kept += [getattr(m, name) for m in model.modules() for name in ("state", "quant_state") if hasattr(m, name)]
    return copy.deepcopy(model, {id(one): one for one in kept if one is not None})


def attach(model: nn.Module, folder: Path) -> Any:
    """peft's model around `model`, whose modules now hold the adapter in `folder`, in force.

    EmlabError where the folder holds no adapter in safetensors, where it is of a kind that is no layer inside the model
    (a prompt), and where a weight of it has no place here or a place has no weight: peft would leave that at zero, and
    the base's answers would pass for the adapter's.
    """
    from peft import PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict
    from safetensors import SafetensorError

    if not (folder / "adapter_config.json").is_file():
        raise EmlabError(f"The folder {folder} has no adapter_config.json; give the folder of a peft adapter.")
    check_weights(folder, "adapter", "adapter_model.safetensors")
    base = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)  # peft asks transformers by an older name
            warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")  # see `_untie`
            config = PeftConfig.from_pretrained(str(folder))
            if config.is_prompt_learning or config.is_adaption_prompt:
                raise ValueError(f"a {config.peft_type.value} is no layer inside the model; give a LoRA adapter")
            config.inference_mode = True
            tuned = PeftModel(model, config)
            weights = load_peft_weights(str(folder), device=str(_device(model)))
            placed = set_peft_model_state_dict(tuned, weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError) as error:
        raise EmlabError(f"The adapter in {folder} does not fit this model: {first_line(error)}") from error
    finally:
        for parameter, needed in base:  # peft has frozen them, and they may be another model's too
            parameter.requires_grad_(needed)
    known = {id(parameter) for parameter, _ in base}
    new = {name for name, parameter in tuned.named_parameters() if id(parameter) not in known}
    if astray := [*placed.unexpected_keys, *(key for key in placed.missing_keys if key in new)]:
        raise EmlabError(
            f"The adapter in {folder} does not fit this model: {len(astray)} of its weights have no place or no value "
            f"here, {astray[0]} among them; give the base that it was trained on."
        )
    return tuned.eval()


def merge(tuned: Any) -> Any:
    """The Hugging Face model that peft's model wraps, the adapter in its weights; `tuned` is of no use afterwards."""
    model = tuned.get_base_model()
    _untie(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")  # of what `_untie` has seen to
        return tuned.merge_and_unload().eval()


def _untie(model: Any) -> None:
    """Give the unembedding weights of its own where an adapter changes one end of tied embeddings, and so not both."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    if None in ends or not any(isinstance(end, BaseTunerLayer) for end in ends):
        return
    into, out = (end.get_base_layer() if isinstance(end, BaseTunerLayer) else end for end in ends)
    if out.weight is into.weight:
        out.weight = nn.Parameter(into.weight.detach().clone(), requires_grad=into.weight.requires_grad)


def _device(model: nn.Module) -> Any:
    return next(model.parameters()).device
