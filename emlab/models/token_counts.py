"""How many tokens some texts are to a model behind an endpoint, as exactly as can be told from here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emlab.errors import EmlabError

Count = Callable[[Sequence[str]], int]


def counter(model: str, openai: bool = False) -> tuple[Count, str]:
    """What counts the tokens of `model`, a server's name for it, and how to call that.

    The tokenizer in the folder where the name is one (vLLM, SGLang and `transformers serve` name a local model so);
    for a model of OpenAI's tiktoken, where it is installed and has its vocabulary or can fetch it; else a quarter of
    the characters, which is about right for English and too few for code and other languages.
    """
    return _of_folder(model) or (_tiktoken(model) if openai else None) or (_quarter, "a quarter of the characters")


def _of_folder(model: str) -> tuple[Count, str] | None:
    from emlab.models.loading import load_tokenizer

    if not Path(model).is_dir():
        return None
    try:
        tokenizer: Any = load_tokenizer(Path(model))
    except EmlabError:
        return None

    def count(texts: Sequence[str]) -> int:
        return sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)

    return count, "its tokenizer"


def _tiktoken(model: str) -> tuple[Count, str] | None:
    if importlib.util.find_spec("tiktoken") is None:
        return None
    import tiktoken

    try:
        encoding = tiktoken.encoding_for_model(model)
    except Exception:  # noqa: BLE001  # an unknown model, or whatever the fetching of a vocabulary raises
        return None

    def count(texts: Sequence[str]) -> int:
        return sum(len(encoding.encode_ordinary(text)) for text in texts)

    return count, f"tiktoken's {encoding.name}"


def _quarter(texts: Sequence[str]) -> int:
    return sum(map(len, texts)) // 4
