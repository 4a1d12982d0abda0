"""Which tokens an SAE sees."""

import pytest
import torch

from emlab.errors import EmlabError
from emlab.models.activations import Activations
from emlab.saes import document_activations
from emlab.sites import Site

SITE = Site("resid_post", 1)


class Reader:
    """A model whose token vectors are (document, index); a document's tokens are here its letters."""

    name, device = "reader", torch.device("cpu")

    def __init__(self, sink=None):
        self.sink, self.read = sink, 0

    def activations(self, prompts, site, positions):
        assert (site, positions) == (SITE, "all")
        rows = [(self.read + i, j) for i, text in enumerate(prompts) for j in range(len(text))]
        self.read += len(prompts)
        values = torch.tensor([[1.0 + i, float(j)] for i, j in rows]).reshape(-1, 2)
        if self.sink is not None:
            values[rows.index(self.sink)] *= 1000
        index = torch.tensor(rows).reshape(-1, 2)
        return Activations(values, index[:, 0], index[:, 1], index[:, 1], site)


def test_the_first_token_of_every_document_is_left_out():
    found = document_activations(Reader(), ["abc", "d", "ef"], SITE, tokens=100)
    assert found.values.tolist() == [[1.0, 1.0], [1.0, 2.0], [3.0, 1.0]]
    assert (found.documents, found.sinks, found.model, found.site) == (3, 0, "reader", SITE)


def test_a_sink_is_left_out_and_counted():
    found = document_activations(Reader(sink=(0, 2)), ["abcde"], SITE, tokens=100)
    assert found.values[:, 1].tolist() == [1.0, 3.0, 4.0]
    assert found.sinks == 1


def test_reading_stops_when_there_are_enough():
    model = Reader()
    found = document_activations(model, ["abcd"] * 100, SITE, tokens=10, chunk=2)
    assert len(found.values) == 10
    assert found.documents == model.read == 4


def test_documents_of_one_token_give_nothing():
    with pytest.raises(EmlabError, match="two tokens or more"):
        document_activations(Reader(), ["a", "b"], SITE, tokens=5)
