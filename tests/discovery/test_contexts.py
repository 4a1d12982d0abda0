"""Top contexts: the right documents, cut around the right tokens."""

from types import SimpleNamespace

import pytest
import torch

from emlab.discovery import Context, load_contexts, save_contexts, top_contexts
from emlab.errors import EmlabError
from emlab.models.activations import Activations
from emlab.sites import Site

SITE = Site("resid_post", 0)
SAE = SimpleNamespace(W_dec=torch.eye(2), cfg=SimpleNamespace(d_sae=2), encode=lambda x: x.relu())


class Model:
    """Document i has the tokens 0, 1, …, whose second coordinate is given."""

    tokenizer = SimpleNamespace(
        convert_ids_to_tokens=lambda i: f"t{i}", convert_tokens_to_string=lambda tokens: "".join(tokens) + " "
    )

    def __init__(self, *levels):
        self.levels = levels

    def activations(self, documents, site, positions):
        rows = [(d, i, level) for d, levels in enumerate(self.levels) for i, level in enumerate(levels)]
        index, place = torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows])
        values = torch.tensor([[0.0, r[2]] for r in rows])
        return Activations(values, index, place, place, site)


def test_the_strongest_documents_around_their_peaks():
    model = Model([9.0, 0.1, 0.2], [0.0, 1.0, 3.0, 2.0, 0.5], [0.0, 0.0, 1.0])
    found = top_contexts(model, SAE, 1, SITE, ["a", "b", "c"], ["x", "y", "z"], n=2, window=1)
    # The first token of a document, where attention sinks sit, does not count.
    assert [c.label for c in found] == ["y", "z"]
    assert found[0].tokens == ("t1 ", "t2 ", "t3 ")
    assert found[0].activations == pytest.approx((1.0, 3.0, 2.0)) and found[0].peak == pytest.approx(3.0)
    assert found[1].tokens == ("t1 ", "t2 ")


def test_they_come_back_from_disk(tmp_path):
    kept = (Context(("a", "</pre>"), (0.0, 1.5), "malicious"),)
    assert load_contexts(save_contexts(kept, tmp_path / "c.json")) == kept
    (tmp_path / "c.json").write_text('[{"tokens": 1}]')
    with pytest.raises(EmlabError, match="holds no contexts"):
        load_contexts(tmp_path / "c.json")


def test_no_documents_are_refused():
    with pytest.raises(EmlabError, match="no documents"):
        top_contexts(Model(), SAE, 1, SITE, [])
