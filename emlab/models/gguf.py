"""Models in a gguf file, as llama.cpp keeps them, made ordinary Hugging Face folders."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emlab import artifacts
from emlab.errors import EmlabError, install
from emlab.models.loading import first_line, named_dtype, no_bars

if TYPE_CHECKING:
    import torch


def save_gguf(file: str | Path, folder: str | Path, dtype: torch.dtype | str = "float32") -> Path:
    """Write the model and the tokenizer in the gguf `file` to `folder`, as transformers keeps them.

    Weights that the file holds in few bits are written as what these bits stand for: nothing is gained by it, and in
    float32 nothing more is lost.

    Args:
        file: What llama.cpp wrote.
        folder: The new folder.
        dtype: Of the weights that are written.

    Raises EmlabError where the extra `real` is not installed; where the file is none, is broken, has no tokenizer, or
    is of a kind that transformers does not read; and where the folder cannot be written.
    """
    folder = artifacts.place(folder)
    with artifacts.new_folder(folder) as new, no_bars():
        model, tokenizer = read_gguf(artifacts.place(file))
        model.to(named_dtype(dtype)).save_pretrained(new)
        tokenizer.save_pretrained(new)
    return folder


def read_gguf(file: Path) -> tuple[Any, Any]:
    """The model, in float32, and the tokenizer. Raises as `save_gguf`."""
    try:
        import gguf  # noqa: F401  (transformers asks for it too late, and by another name)
    except ImportError as error:
        raise EmlabError(f"Reading {file.name} needs the package gguf: {install('real')}.") from error
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    artifacts.check_file(file)
    with open(file, "rb") as opened:
        if opened.read(4) != b"GGUF":
            raise EmlabError(f"{file} is no gguf file; give one, or a Hugging Face model folder.")
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # reading has a bar of its own
            read = AutoModelForCausalLM.from_pretrained(**where, dtype="float32")
            tokenizer = AutoTokenizer.from_pretrained(**where)
    except Exception as error:  # of the gguf reader, numpy and the tokenizers library, which raises bare Exception
        raise EmlabError(
            f"The model in {file} cannot be read ({first_line(error)[:200]}): the file is cut short, or of an "
            "architecture that transformers does not read."
        ) from error
    about = {k: v for k, v in read.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    # transformers does not save what it read from a gguf file, so the weights go into a model that was made otherwise.
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**about))
    model.load_state_dict(read.state_dict())
    return model.eval(), tokenizer
