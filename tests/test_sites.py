"""Sites: their text, and each library's name for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.errors import EmlabError
from emlab.sites import STREAMS, Hook, Site

SITES = st.builds(Site, st.sampled_from(STREAMS), st.integers(0, 200))


@given(SITES)
def test_text_and_lens_name_are_read_back(site):
    assert Site.parse(str(site)) == site
    assert Site.parse(site.lens_name) == site
    assert Site.parse(site) is site


@given(st.text(max_size=30))
def test_any_other_text_is_refused_in_one_sentence(text):
    try:
        assert str(Site.parse(text)) == text.strip() or Site.parse(text).lens_name == text.strip()
    except EmlabError as error:
        assert "such as resid_post.1" in str(error) or "There is no stream" in str(error)


@pytest.mark.parametrize(
    "text",
    ["", "resid_post", "resid_post.-1", "resid_mid.1", "resid_post.1.2", "resid_post.¹", "resid_post." + "9" * 5000],
)
def test_what_is_no_site(text):
    with pytest.raises(EmlabError):
        Site.parse(text)


def test_names_by_hand():
    site = Site("resid_post", 1)
    assert str(site) == "resid_post.1"
    assert site.lens_name == "blocks.1.hook_resid_post"
    assert site.hook("llama") == Hook("model.layers.1", "output")
    assert Site("resid_pre", 0).hook("gpt2") == Hook("transformer.h.0", "input")
    assert Site("mlp_out", 2).hook("gpt_neox") == Hook("gpt_neox.layers.2.mlp", "output")
    assert Site("attn_out", 2).hook("gemma2") == Hook("model.layers.2.post_attention_layernorm", "output")
