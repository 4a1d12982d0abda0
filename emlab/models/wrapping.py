"""The object that one already has as a backend, and as a LanguageModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emlab.errors import EmlabError
from emlab.models import adapters, loading
from emlab.models.backends.hugging_face import HuggingFaceBackend
from emlab.models.backends.lens_bridge import LensBackend
from emlab.models.backends.nnsight_trace import NNsightBackend
from emlab.models.backends.protocol import Backend
from emlab.models.hub import kept_folder
from emlab.models.language_model import LanguageModel


def wrap(model: Any, tokenizer: Any = None) -> Backend:
    """The backend of a `LanguageModel`, a Hugging Face or PEFT causal LM, a `TransformerBridge`, or an nnsight model.

    The model is used as it is, never copied, and left as it is. `tokenizer` None takes the one that the model holds, if
    it holds one; only the positions "sentence" need it. EmlabError for anything else.
    """
    from transformers import PreTrainedModel

    if isinstance(model, Backend):
        return model
    if isinstance(model, LanguageModel):
        backend = HuggingFaceBackend(model.model, lambda: model.sentence_ends)
        backend.language_model = model
        return backend
    kinds = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(model).__mro__}
    libraries = {kind.split(".")[0] for kind in kinds}

    def ends() -> Any:
        return LanguageModel(None, known, "").sentence_ends

    known = tokenizer if tokenizer is not None else _tokenizer(model, libraries)
    sentence_ends = None if known is None else ends
    if "transformer_lens.TransformerBridge" in kinds:
        return LensBackend(model, sentence_ends)
    if "nnsight" in libraries:
        return NNsightBackend(model, sentence_ends)
    if "peft.PeftModel" in kinds:
        return HuggingFaceBackend(model.get_base_model(), sentence_ends)
    if isinstance(model, PreTrainedModel):
        backend = HuggingFaceBackend(model, sentence_ends)
        if known is not None:
            backend.language_model = LanguageModel(model, known, _name(model))
        return backend
    raise EmlabError(
        f"A {type(model).__name__} is no model that emlab can edit; give a Hugging Face causal LM, a "
        "TransformerBridge, a model of nnsight, or a LanguageModel."
    )


def as_language_model(model: Any) -> LanguageModel:
    """A `LanguageModel` as it is, or over a bare Hugging Face causal LM, or over what `wrap` made of either.

    The tokenizer of a bare model is that of the folder, or of the Hub's model on this machine, that it was loaded from;
    its weights are used as they are, in evaluation mode, and its own mode stays. EmlabError where no tokenizer can be
    known, for a model without a head that predicts tokens or with an adapter of peft's on it, for a model in another
    library, and while edits are in force on what `wrap` made.
    """
    if isinstance(model, LanguageModel) or hasattr(model, "activations"):  # what reads as one serves as one
        return model
    from transformers import PreTrainedModel

    if isinstance(model, Backend):
        if model.edits:
            raise EmlabError("Edits are in force on this wrapped model, and nothing else sees them; give edits= here.")
        if isinstance(model, HuggingFaceBackend):
            return model.language_model or as_language_model(model.model)
        raise EmlabError(
            f"A model in {model.library} is no LanguageModel, which this needs; load the Hugging Face model by "
            "emlab.LanguageModel.load(folder)."
        )
    if hasattr(model, "peft_config"):
        raise EmlabError(
            "A model with an adapter of peft's on it is no LanguageModel, which this needs; load the two by "
            "emlab.LanguageModel.load(base, adapter=folder)."
        )
    if not isinstance(model, PreTrainedModel):
        raise EmlabError(
            f"A {type(model).__name__} is no language model; give an emlab.LanguageModel, such as "
            "emlab.LanguageModel.load(folder) makes."
        )
    if model.get_output_embeddings() is None:
        raise EmlabError(
            f"A {type(model).__name__} predicts no tokens; load it by AutoModelForCausalLM, or by "
            "emlab.LanguageModel.load(folder)."
        )
    try:
        tokenizer = loading.load_tokenizer(kept_folder(model.config.name_or_path))
    except EmlabError as error:
        raise EmlabError(
            f"The tokenizer of this {type(model).__name__} is not known here ({str(error).rstrip('.')}); give both: "
            "emlab.LanguageModel(model, tokenizer, name)."
        ) from error
    # A model in the middle of its owner's training stays in it: the same weights, in evaluation mode beside it.
    return LanguageModel(adapters.sharing(model).eval() if model.training else model, tokenizer, _name(model))


def _name(model: Any) -> str:
    """A bare Hugging Face model's name, for tables."""
    return Path(model.config.name_or_path).name or type(model).__name__


def _tokenizer(model: Any, libraries: set[str]) -> Any:
    return getattr(model, "tokenizer", None) if libraries & {"transformer_lens", "nnsight"} else None
