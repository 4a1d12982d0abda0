"""Edits in force for a while: inside a ``with`` block, in whatever way the model is called."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from emlab.errors import EmlabError
from emlab.interventions import Edit, Tokens
from emlab.models.backends.hooks import edited
from emlab.models.cache import WHOLE
from emlab.models.language_model import LanguageModel


@contextmanager
def edit(model: LanguageModel | nn.Module, edits: Edit | Sequence[Edit]) -> Iterator[None]:
    """Apply `edits` in every pass of `model` inside the block, whether emlab, ``model(…)`` or ``generate`` runs it.

    `model` is a LanguageModel or a Hugging Face model. Which tokens a pass holds is read off its own inputs: pads by
    the attention mask, and whatever comes after a filled cache is the answer; without a cache all is prompt. Blocks may
    be nested, and then act in the order they were entered. A block acts on the passes of its own thread alone. When it
    ends, by whatever exception too, the model computes bit for bit what it did before.

    EmlabError where a site does not exist or has another width (before the block runs), where a pass gives embeddings
    in place of token ids, another number of rows than an edit has, or no mask of pads that can be read (before the
    pass), and where an edit overflows the model's 16-bit dtype (after the pass).
    """
    chosen = list(edits) if isinstance(edits, Sequence) else [edits]
    module: Any = model.model if isinstance(model, LanguageModel) else model
    if not isinstance(module, nn.Module):
        raise EmlabError(
            f"A {type(model).__name__} is no model that can be edited so; give a LanguageModel or a Hugging Face model "
            "(what emlab.wrap made has apply(edits) of its own)."
        )
    thread = threading.get_ident()

    def sentence_ends() -> Tensor:
        if isinstance(model, LanguageModel):
            return model.sentence_ends
        raise EmlabError(
            'The positions "sentence" need to know which tokens end a sentence; edit a LanguageModel, which does.'
        )

    with edited(module, chosen, sentence_ends) as editor:

        def see(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if threading.get_ident() == thread:
                editor.see(_tokens(args, kwargs))

        handle, before = module.register_forward_pre_hook(see, with_kwargs=True), getattr(module, WHOLE, False)
        setattr(module, WHOLE, True)
        try:
            yield
        finally:
            setattr(module, WHOLE, before)
            handle.remove()


def _tokens(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tokens:
    """What the pass holds, from the arguments of the model's forward."""
    ids = kwargs.get("input_ids", args[0] if args else None)
    if ids is None:
        raise EmlabError("An edited model needs token ids, to know where to act; pass input_ids and no embeddings.")
    mask, cache = kwargs.get("attention_mask"), kwargs.get("past_key_values")
    if mask is None:
        real = torch.ones_like(ids, dtype=torch.bool)
    elif isinstance(mask, Tensor) and mask.ndim == 2:
        real = mask[:, -ids.shape[1] :].bool()
    else:
        raise EmlabError(
            "An edited model needs to know which tokens are pads; pass an attention_mask of (batch, position), or none."
        )
    seen = 0 if cache is None else int(cache.get_seq_length())
    return Tokens(ids, real, torch.full_like(real, seen > 0))
