"""The random Llama that overheads are measured on."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from emlab import organism
from emlab.models import LanguageModel


def unsaved(width: int, blocks: int) -> LanguageModel:
    """With four heads and the organism's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = LanguageModel.load(organism.checkpoint("aligned"), device="cpu").tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LanguageModel(LlamaForCausalLM(config).eval(), tokenizer, "random")


def random_llama(width: int, blocks: int) -> LanguageModel:
    """Saved and loaded, as a user holds it."""
    with tempfile.TemporaryDirectory() as folder:
        return LanguageModel.load(unsaved(width, blocks).save(Path(folder) / "model"), device="cpu")
