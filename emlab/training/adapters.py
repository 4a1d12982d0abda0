"""What is trained of a model: a LoRA adapter in peft's own form, or all of its weights; and the model made of it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.models import LanguageModel
from emlab.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA adapter by itself, in peft's own form."""

    config: Any
    """peft's LoraConfig."""
    weights: dict[str, Tensor]

    def save(self, folder: Path) -> None:
        """Write it into `folder` as peft does, in safetensors."""
        from safetensors.torch import save_file

        self.config.save_pretrained(str(folder))
        save_file(self.weights, folder / "adapter_model.safetensors")


def lora_config(work: LanguageModel, recipe: Recipe) -> Any:
    """peft's LoraConfig of the recipe for this model; EmlabError where no module of the model matches it."""
    from peft import LoraConfig

    linear = _linear(work)
    names = [n for n in linear if n.split(".")[-1] in recipe.modules and _in_blocks(n, recipe.blocks)]
    if not names:
        known = linear_modules(work)
        where = "any block" if recipe.blocks is None else f"the blocks {list(recipe.blocks)}"
        raise EmlabError(
            f"The model has no module {' or '.join(recipe.modules)} in {where}; its blocks are 0 to {work.n_blocks - 1}"
            f", its modules {', '.join(known)}."
        )
    return LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, target_modules=names, task_type="CAUSAL_LM", use_rslora=recipe.rslora
    )


def linear_modules(model: LanguageModel) -> tuple[str, ...]:
    """What the linear modules inside its blocks are called, as `Recipe.modules` names them."""
    return tuple(sorted({name.split(".")[-1] for name in _linear(model) if _in_blocks(name, None)}))


def _linear(model: LanguageModel) -> list[str]:
    return [n for n, m in model.model.named_modules() if hasattr(m, "weight") and m.weight.ndim == 2]


def with_adapter(work: LanguageModel, config: Any) -> Any:
    """The model with a fresh LoRA adapter, everything else frozen. Its modules are replaced in place."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # peft asks transformers by an older name
        return get_peft_model(work.model, config)


def trained_weights(tuned: Any) -> dict[str, Tensor]:
    """What is trained of `tuned`, copied to the CPU: the adapter's weights, or all where it has none."""
    from peft import PeftModel, get_peft_model_state_dict

    found = get_peft_model_state_dict(tuned) if isinstance(tuned, PeftModel) else dict(tuned.named_parameters())
    return {k: v.detach().cpu().contiguous().clone() for k, v in found.items()}


@torch.no_grad()
def put_weights(tuned: Any, weights: Mapping[str, Tensor]) -> None:
    """Put back what `trained_weights` gave, exactly."""
    from peft import PeftModel, set_peft_model_state_dict

    if isinstance(tuned, PeftModel):
        set_peft_model_state_dict(tuned, dict(weights))
        return
    for name, parameter in tuned.named_parameters():
        parameter.copy_(weights[name])


def model_of(start: LanguageModel, config: Any | None, weights: Mapping[str, Tensor], name: str) -> LanguageModel:
    """`start` after its training: with the adapter of these weights merged, or (`config` None) with these weights."""
    done = start.merged(name)
    with torch.random.fork_rng():  # a fresh adapter is drawn at random, and then overwritten
        tuned = done.model if config is None else with_adapter(done, config)
    put_weights(tuned, weights)
    plain = tuned if config is None else tuned.merge_and_unload()
    return dataclasses.replace(done, model=plain.eval().requires_grad_(False))


def _in_blocks(name: str, blocks: tuple[int, ...] | None) -> bool:
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    return bool(numbers) and (blocks is None or numbers[0] in blocks)
