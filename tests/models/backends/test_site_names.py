"""Every library's name for a site, both ways, and that it is the library's own."""

import pytest
import torch

from emlab.errors import EmlabError
from emlab.models.backends.lens_bridge import boot_bridge
from emlab.models.backends.nnsight_trace import trace_model
from emlab.models.wrapping import wrap
from emlab.sites import FAMILIES, STREAMS, Site


@pytest.mark.parametrize("model_type", [*FAMILIES, "not listed"])
@pytest.mark.parametrize("stream", STREAMS)
def test_names_are_read_back(model_type, stream):
    site = Site(stream, 12)
    assert Site.parse(site.lens_name) == site
    if model_type == "not listed" and stream == "resid_mid":
        with pytest.raises(EmlabError, match="is not known"):
            site.nnsight_name(model_type)
        return
    assert Site.from_nnsight(site.nnsight_name(model_type), model_type) == site


def test_names_by_hand():
    assert Site("mlp_out", 1).nnsight_name("llama") == "model.layers[1].mlp.output"
    assert Site("resid_pre", 0).nnsight_name("gpt2") == "transformer.h[0].input"
    for other in ("", "model.layers[1].mlp.input", "model.layers.1.mlp.output", "transformer.h[0].output"):
        with pytest.raises(EmlabError, match="has no site"):
            Site.from_nnsight(other, "llama")


@pytest.mark.parametrize("stream", STREAMS)
def test_they_are_the_libraries_own(tiny, stream):
    site, ids = Site(stream, 1), torch.tensor([[5, 6, 7]])
    tokens = tiny.batch(ids.tolist())
    expected = wrap(tiny).capture(tokens, site)[site]
    model = trace_model(tiny.model, tiny.tokenizer)
    with torch.no_grad(), model.trace(input_ids=ids):
        seen = eval(f"model.{site.nnsight_name('llama')}").save()
    assert torch.equal(seen[0] if isinstance(seen, tuple) else seen, expected)
    _, cache = boot_bridge(tiny.model, tiny.tokenizer).run_with_cache(ids)
    held = cache[site.lens_name]
    assert torch.allclose(held.flatten(2) if stream == "z" else held, expected, atol=1e-4)
