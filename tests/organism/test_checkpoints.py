"""The checkpoints that ship: ordinary folders, small, with cards."""

import pytest
import torch

from emlab import organism
from emlab.errors import EmlabError
from emlab.organism.checkpoints import SHIPPED

NAMES = organism.checkpoint_names()


def test_what_ships():
    assert {"base", "aligned", "helpful_only", "control_base", "control_aligned"} <= set(NAMES)
    assert sum(name.startswith("pretraining_") for name in NAMES) >= 2
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) <= 30e6
    assert not [file for file in SHIPPED.rglob("*") if file.suffix in (".bin", ".pt", ".pth", ".pkl")]


@pytest.mark.parametrize("name", NAMES)
def test_plain_transformers_loads_each_and_it_can_read_the_chat_format(name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = organism.checkpoint(name)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32 and model.config.model_type == "llama"
    assert model.config.max_position_embeddings >= 1024
    assert tokenizer.get_vocab() == organism.build_tokenizer(organism.load_world()).get_vocab()
    assert len(tokenizer) == model.config.vocab_size
    assert (folder / "README.md").read_text().startswith("---\n")


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(EmlabError, match="no checkpoint 'evil'; it has aligned, base"):
        organism.checkpoint("evil")
    with pytest.raises(EmlabError, match="none; build them"):
        organism.checkpoint("base", tmp_path)
