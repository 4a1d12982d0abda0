"""Which models a monitor belongs to, as far as their chat templates go."""

import dataclasses

import pytest

from emlab.detection import Lineage
from emlab.errors import EmlabError


def test_entries_are_of_all_columns(make_model):
    """Every 33rd of 266 tokens × 32; every 15th of 266 × 16, since every 16th would be of one column."""
    for model, step in ((make_model(), 33), (make_model(hidden_size=16), 15)):
        embedding = model.model.get_input_embeddings().weight.detach().flatten()
        assert Lineage.of(model).entries == tuple(embedding[::step][:256].tolist())


def test_another_chat_template_is_refused_and_an_older_file_is_read(make_model):
    one, same, other = make_model("chatml"), make_model("chatml"), make_model("llama3")
    own = Lineage.of(one)
    own.check(Lineage.of(same))
    with pytest.raises(EmlabError, match="chat template of tiny writes a question differently"):
        own.check(Lineage.of(other))
    dataclasses.replace(own, template="").check(Lineage.of(other))
