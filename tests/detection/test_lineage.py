"""Which models a monitor belongs to, as far as their chat templates go."""

import dataclasses

import numpy as np
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


def test_the_header_is_part_of_the_template(make_model, chat_templates):
    other = make_model(chat_templates["chatml"].replace("assistant\n' }}{% endif", "helper\n' }}{% endif"))
    with pytest.raises(EmlabError, match="chat template of tiny writes a question differently"):
        Lineage.of(make_model()).check(Lineage.of(other))


def test_kin_have_embeddings_with_a_correlation_of_nine_tenths():
    # Orthogonal unit vectors of mean 0: the correlation with the first is the cosine.
    one, other = np.array([1.0, -1, 1, -1]) / 2, np.array([1.0, 1, -1, -1]) / 2

    def of(cosine):
        mixed = 7 + 3 * (cosine * one + np.sqrt(1 - cosine**2) * other)
        return Lineage("m", "llama", 2, 1, tuple(mixed.tolist()), "v")

    of(1).check(of(0.91))
    with pytest.raises(EmlabError, match=r"have a correlation of 0.89\)"):
        of(1).check(of(0.89))
    with pytest.raises(EmlabError, match=r"have a correlation of 0.00\)"):
        of(1).check(dataclasses.replace(of(1), entries=(5.0,) * 4))
