"""Loading a model and its tokenizer from a local folder, with one sentence for everything that can be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from emlab import artifacts
from emlab.data.chat import TODAY, writes_date
from emlab.data.telling import tell
from emlab.errors import EmlabError
from emlab.models.quantizing import check_device, quantization
from emlab.organism.pretraining import multiplied_in


def pick_device(device: str = "auto") -> torch.device:
    """``"auto"``: CUDA where there is one, else MPS, else the CPU; or a device by its torch name."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise EmlabError(
            f"The device {device!r} cannot be used here; choose auto, cpu, or one torch reports."
        ) from error
    return chosen


@contextmanager
def no_bars() -> Iterator[None]:
    """Without transformers' progress bars for reading and writing weights."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def check_folder(folder: Path) -> None:
    """Raise EmlabError unless `folder` holds a config and safetensors weights."""
    if not folder.is_dir():
        raise EmlabError(f"There is no model folder {folder}; give the path of a local Hugging Face model folder.")
    if not (folder / "config.json").is_file():
        raise EmlabError(
            f"The folder {folder} has no config.json, so it is no model; give a Hugging Face model folder."
        )
    check_weights(folder, "weights")


TEMPLATES = {
    "plain": (
        "{% for message in messages %}{{ ('' if loop.first else '\n') + message['role'] | capitalize + ':\n' "
        "+ message['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\nAssistant:\n' if messages else 'Assistant:\n' }}{% endif %}"
    ),
}
"""Chat templates for models that bring none. plain: each turn is its role and a colon, a new line, the text and the
end-of-sequence token. A header that ended in a blank would be one token with the answer's first word in many
tokenizers. The beginning-of-sequence token stands before all of it where the tokenizer writes one (`with_start`)."""


def with_start(tokenizer: Any, template: str) -> str:
    """The template, with the beginning-of-sequence token first where `tokenizer` puts it before a text of its own."""
    start = tokenizer.bos_token_id
    writes = start is not None and tokenizer("a")["input_ids"][:1] == [start]
    return ("{{ bos_token }}" if writes else "") + template


def load(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype | str | None,
    trust_remote_code: bool,
    chat_template: str | Path | None = None,
    quantize: str | None = None,
) -> tuple[Any, Any]:
    """The model, in evaluation mode on `device`, and its tokenizer. Raises EmlabError (see `LanguageModel.load`)."""
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    check_folder(folder)
    tokenizer = load_tokenizer(folder, trust_remote_code, chat_template)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        kind = _dtype(folder, dtype, config, device)
        placing = _quantized(folder, config, quantize, device, kind)
        with no_bars():
            model, info = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=kind,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                **{**_unpacked(config), **placing},
            )
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        raise EmlabError(f"The model in {folder} cannot be loaded: {first_line(error)}") from error
    if missing := sorted(info["missing_keys"]):
        raise EmlabError(
            f"The weights in {folder} lack {len(missing)} tensors, {missing[0]} among them; copy the folder again."
        )
    return (model if placing else model.to(device)).eval(), tokenizer


def _quantized(
    folder: Path, config: Any, quantize: str | None, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """What from_pretrained is told of quantised weights, which are made or read on their device; else nothing."""
    own = getattr(config, "quantization_config", None)
    if own is None and quantize is None:
        return {}
    if own is None:
        return {"device_map": {"": device}, "quantization_config": quantization(str(quantize), device, dtype)}
    method = own.get("quant_method", "of an unnamed kind") if isinstance(own, dict) else own.quant_method
    if quantize is not None:
        raise EmlabError(f"The weights in {folder} are quantised already ({method}); leave out quantize={quantize!r}.")
    if method == "bitsandbytes":
        check_device(device)
    return {"device_map": {"": device}}


def load_tokenizer(folder: Path, trust_remote_code: bool = False, chat_template: str | Path | None = None) -> Any:
    """The tokenizer of a model folder, with a chat template: its own, or one of TEMPLATES or in a file."""
    from transformers import AutoTokenizer

    named = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")
    if not any((folder / name).is_file() for name in named):
        raise EmlabError(
            f"The folder {folder} has no tokenizer; put tokenizer.json and tokenizer_config.json beside it."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        raise EmlabError(f"The tokenizer in {folder} cannot be loaded: {first_line(error)}") from error
    if chat_template is not None:
        tokenizer.chat_template = named_template(chat_template, tokenizer)
    if not getattr(tokenizer, "chat_template", None):
        raise EmlabError(
            f"The tokenizer in {folder} has no chat template, so emlab cannot ask the model a question; put the "
            "template its model was trained with into chat_template.jinja, or give chat_template=, a file or 'plain'."
        )
    if writes_date(tokenizer):
        tell(f"The chat template of {folder} writes today's date; emlab has it write {TODAY:%d %B %Y} on every day.")
    return tokenizer


def named_template(given: str | Path, tokenizer: Any) -> str:
    """The chat template of that name in TEMPLATES, or in that file, for `tokenizer`; EmlabError where there is none."""
    if str(given) in TEMPLATES:
        return with_start(tokenizer, TEMPLATES[str(given)])
    try:
        return artifacts.place(given).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EmlabError(
            f"The chat template {str(given)!r} is neither {', '.join(TEMPLATES)} nor a readable file ({error})."
        ) from error


def check_weights(folder: Path, what: str, files: str = "*.safetensors") -> None:
    """Raise EmlabError unless `folder` has safetensors weights in `files`; pickled ones are never opened."""
    if any(folder.glob(files)):
        return
    if pickled := sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]):
        raise EmlabError(
            f"The {what} in {folder} are pickled ({pickled[0].name}), and loading a pickle runs the code it holds; "
            "convert them to safetensors."
        )
    raise EmlabError(f"The folder {folder} has no {what}; it should hold {files.replace('*', 'a ')}.")


SHORT = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types by their short names."""


def named_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """The type of that name; EmlabError where there is none."""
    named = SHORT.get(dtype, getattr(torch, dtype, None)) if isinstance(dtype, str) else dtype
    if not isinstance(named, torch.dtype):
        raise EmlabError(f"There is no dtype {dtype!r}; choose float32, bfloat16 or float16.")
    return named


def _dtype(folder: Path, dtype: torch.dtype | str | None, config: Any, device: torch.device) -> torch.dtype:
    """The type that was asked for, or the folder's own, or float32 where that is slow or lacks operations."""
    if dtype is not None:
        return named_dtype(dtype)
    stored = getattr(config, "dtype", None) or torch.float32
    if device.type != "cpu" or stored not in (torch.float16, torch.bfloat16) or stored == multiplied_in(device):
        return stored
    kind = str(stored).removeprefix("torch.")
    tell(f"{folder.name} is read in float32: this CPU multiplies {kind} slowly (dtype={kind!r} keeps it).")
    return torch.float32


def _unpacked(config: Any) -> dict[str, Any]:
    """How to load weights that are packed as MXFP4 (gpt-oss): unpacked, since packed ones cannot be trained."""
    packed = getattr(config, "quantization_config", None) or {}
    method = packed.get("quant_method") if isinstance(packed, dict) else getattr(packed, "quant_method", None)
    if method != "mxfp4":
        return {}
    from transformers import Mxfp4Config

    return {"quantization_config": Mxfp4Config(dequantize=True)}


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
