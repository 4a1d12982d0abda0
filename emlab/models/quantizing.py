"""Weights held in 4 or 8 bits by bitsandbytes, so that a model fits that otherwise would not.

- ``"4bit"``  NormalFloat with doubly quantised constants, as in QLoRA (Dettmers et al. 2023, arXiv:2305.14314)
- ``"8bit"``  LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339)

Activations and the residual stream stay in the model's own type, so sites, edits and generation are the same. Which
devices there are is bitsandbytes' business: CUDA, and the CPU too, where it is slow and good for tests.
"""

from __future__ import annotations

from typing import Any

import torch

from emlab.errors import EmlabError, install

KINDS = ("4bit", "8bit")


def quantization(kind: str, device: torch.device, dtype: torch.dtype) -> Any:
    """transformers' `BitsAndBytesConfig` for weights of that kind, multiplied in `dtype`.

    EmlabError where there is no such kind, no bitsandbytes, or none for this device.
    """
    if kind not in KINDS:
        raise EmlabError(f"There is no quantization {kind!r}; choose {' or '.join(KINDS)}.")
    check_device(device)
    from transformers import BitsAndBytesConfig

    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def check_device(device: torch.device) -> None:
    """Raise EmlabError unless bitsandbytes is here and can hold weights on `device`."""
    from transformers.utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise EmlabError(
            f"Quantised weights need bitsandbytes, which is not installed here or too old; {install('quantize')}."
        )
    import bitsandbytes

    if device.type not in bitsandbytes.supported_torch_devices:
        raise EmlabError(
            f"bitsandbytes {bitsandbytes.__version__} holds no weights on {device.type}, only on "
            f"{', '.join(sorted(bitsandbytes.supported_torch_devices))}; choose another device or leave the weights "
            "as they are."
        )


def is_quantized(model: Any) -> bool:
    """Whether a Hugging Face model's weights are quantised, by emlab or in its folder."""
    return getattr(model.config, "quantization_config", None) is not None
