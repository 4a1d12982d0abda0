"""Sites: their text, and each library's name for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.errors import EmlabError
from emlab.sites import FAMILIES, STREAMS, Hook, Site

SITES = st.builds(Site, st.sampled_from(STREAMS), st.integers(0, 200))
HEADS = st.builds(Site, st.just("z"), st.integers(0, 200), st.integers(0, 200))


@given(SITES | HEADS)
def test_text_and_lens_name_are_read_back(site):
    assert Site.parse(str(site)) == site
    assert Site.parse(site.lens_name) == site.whole
    assert Site.parse(site.lens_name, site.head) == site, "SAELens gives the head apart"
    assert Site.parse(site) is site


@given(SITES, st.sampled_from(sorted(FAMILIES)))
def test_module_paths_are_read_back(site, model_type):
    hook = site.hook(model_type)
    assert Site.at(hook.module, model_type, hook.side) == site
    if hook.side == "output":
        try:
            assert Site.parse(hook.module) == site
        except EmlabError as error:
            assert "depends on the architecture" in str(error)


@given(st.text(max_size=30))
def test_any_other_text_is_refused_in_one_sentence(text):
    try:
        assert str(Site.parse(text)) == text.strip() or Site.parse(text).lens_name == text.strip()
    except EmlabError as error:
        assert "such as resid_post.1" in str(error) or "There is no stream" in str(error)


@pytest.mark.parametrize(
    "text",
    ["", "resid_post", "resid_post.-1", "resid_middle.1", "resid_post.1.2", "resid_post.¹", "resid_post." + "9" * 5000],
)
def test_what_is_no_site(text):
    with pytest.raises(EmlabError):
        Site.parse(text)


def test_a_head_is_of_the_stream_z():
    assert Site.parse("z.3.1") == Site("z", 3, 1) and Site.parse("z.3") == Site("z", 3) == Site("z", 3, 1).whole
    for stream, head in (("resid_post", 0), ("z", -1)):
        with pytest.raises(EmlabError, match="heads are counted from 0"):
            Site(stream, 1, head)


def test_they_are_sorted_as_a_pass_reaches_them():
    sites = [Site(stream, block) for block in (0, 1) for stream in STREAMS]
    assert sorted([*sites[5:], *sites[:5]], key=lambda site: site.order) == sites


def test_names_by_hand():
    site = Site("resid_post", 1)
    assert str(site) == "resid_post.1"
    assert site.lens_name == "blocks.1.hook_resid_post"
    assert Site("z", 1, 2).lens_name == "blocks.1.attn.hook_z"
    assert Site("resid_mid", 1).lens_name == "blocks.1.hook_resid_mid"
    assert site.hook("llama") == Hook("model.layers.1", "output")
    assert Site("resid_pre", 0).hook("gpt2") == Hook("transformer.h.0", "input")
    assert Site("mlp_out", 2).hook("gpt_neox") == Hook("gpt_neox.layers.2.mlp", "output")
    assert Site("attn_out", 2).hook("gemma2") == Hook("model.layers.2.post_attention_layernorm", "output")
    assert Site("z", 2, 1).hook("gpt2") == Hook("transformer.h.2.attn.c_proj", "input")
    assert Site("resid_mid", 2).hook("qwen2") == Hook("model.layers.2.post_attention_layernorm", "input")
    assert Site("resid_mid", 2).hook("gemma3_text") == Hook("model.layers.2.pre_feedforward_layernorm", "input")
    assert Site("resid_mid", 2).hook("olmo2") == Hook("model.layers.2.mlp", "input")
    with pytest.raises(EmlabError, match=r"add the type to emlab.sites.FAMILIES"):
        Site("resid_mid", 2).hook("not listed")


def test_a_module_path_is_read_where_it_means_one_thing():
    assert Site.parse("model.layers.4") == Site("resid_post", 4)
    assert Site.parse("model.language_model.layers.4") == Site("resid_post", 4)
    assert Site.parse("transformer.h.4.attn") == Site("attn_out", 4)
    # In Gemma 2 a norm follows the MLP, and what comes after that norm is added to the stream.
    with pytest.raises(EmlabError, match="depends on the architecture"):
        Site.parse("model.layers.4.mlp")
    assert Site.at("model.layers.4.mlp", "llama") == Site("mlp_out", 4)
    with pytest.raises(EmlabError, match="has no site"):
        Site.at("model.layers.4.mlp", "gemma2")
    with pytest.raises(EmlabError, match="is no site"):
        Site.parse("model.layers.4.mlp.up_proj")


def test_what_writes_a_site():
    assert Site("attn_out", 1).writer("gpt2") == Site("resid_mid", 1).writer("gpt2") == "transformer.h.1.attn.c_proj"
    assert Site("resid_post", 1).writer("llama") == "model.layers.1.mlp.down_proj"
    assert Site("resid_mid", 1).writer("olmo2") is None, "a norm comes after it"
    for stream, mend in (("resid_pre", "of the block before"), ("z", "take attn_out")):
        with pytest.raises(EmlabError, match=mend):
            Site(stream, 1).writer("llama")
