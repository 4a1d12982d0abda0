"""An SAE's site by any library's spelling, and whether it fits a model."""

import warnings
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sae_lens.saes.sae import SAEMetadata

from emlab.errors import EmlabError
from emlab.saes import check_site, fitted_site, sae_site, site_named
from emlab.sites import STREAMS, Site


def sae(d_in=32, **metadata):
    return SimpleNamespace(cfg=SimpleNamespace(d_in=d_in, metadata=SAEMetadata(**metadata)))


def model(kind="qwen2", name="mine", width=32, blocks=3, loaded=""):
    config = SimpleNamespace(model_type=kind, _name_or_path=loaded)
    config.get_text_config = lambda: config
    return SimpleNamespace(name=name, d_model=width, n_blocks=blocks, model=SimpleNamespace(config=config))


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("resid_post.1", "resid_post.1"),
        ("blocks.11.hook_resid_post", "resid_post.11"),
        ("blocks.0.hook_resid_pre", "resid_pre.0"),
        ("blocks.4.hook_mlp_out", "mlp_out.4"),
        ("blocks.4.hook_attn_out", "attn_out.4"),
        ("blocks.4.hook_out", "resid_post.4"),
        ("blocks.4.mlp.hook_out", "mlp_out.4"),
        ("model.layers.17", "resid_post.17"),
        ("model.layers.17.output", "resid_post.17"),
        ("model.layers.17.mlp.output", "mlp_out.17"),
        ("model.language_model.layers.5.self_attn", "attn_out.5"),
        ("transformer.h.2", "resid_post.2"),
        ("gpt_neox.layers.3.attention", "attn_out.3"),
        ("layers.9.mlp", "mlp_out.9"),
        ("blocks.5.attn.hook_z", "z.5"),
        ("model.layers.5.self_attn.o_proj.input", "z.5"),
        ("z.5.3", "z.5.3"),
    ],
)
def test_every_spelling_is_read(name, site):
    assert site_named(name) == Site.parse(site)
    assert sae_site(sae(hook_name=name)) == Site.parse(site)


@given(st.sampled_from(STREAMS), st.integers(0, 200))
def test_what_emlab_writes_it_reads(stream, block):
    site = Site(stream, block)
    assert site_named(str(site)) == site_named(site.lens_name) == Site.parse(site.lens_name) == site


@given(st.text(max_size=40))
def test_any_other_text_is_a_site_or_one_sentence(text):
    try:
        assert isinstance(site_named(text), Site)
    except EmlabError as error:
        assert str(error).endswith(".") and "\n" not in str(error).replace(repr(text), "")


@pytest.mark.parametrize("hook", ["blocks.4.attn.hook_q", "blocks.8.ln2.hook_normalized", "hook_embed", "model.norm"])
def test_a_place_that_is_no_site_is_refused(hook):
    with pytest.raises(EmlabError, match="no site of emlab's"):
        sae_site(sae(hook_name=hook))


def test_transcoders_and_saes_without_a_hook_are_refused():
    with pytest.raises(EmlabError, match="transcoder, from blocks"):
        sae_site(sae(hook_name="blocks.4.hook_resid_pre", hook_name_out="blocks.4.hook_mlp_out"))
    with pytest.raises(EmlabError, match="name no hook"):
        sae_site(sae())
    assert sae_site(sae(hf_hook_name="model.layers.4")) == Site("resid_post", 4)


def test_an_sae_is_read_where_it_was_trained():
    """A stream has two names between blocks; one that does not say where it reads is taken at a word."""
    check_site(sae(hook_name="blocks.2.hook_resid_pre"), Site("resid_post", 1))
    check_site(sae(hook_name="blocks.1.hook_resid_post"), "resid_pre.2")
    check_site(sae(hook_name="blocks.5.attn.hook_z", hook_head_index=3), "z.5.3")
    check_site(sae(), Site("mlp_out", 4))
    for reads, asked in (("resid_post.0", "resid_post.2"), ("resid_post.1", "mlp_out.1"), ("z.5.3", "z.5")):
        with pytest.raises(
            EmlabError, match=f"was trained at {reads} and means nothing at {asked}; read it at {reads}"
        ):
            check_site(sae(hook_name=reads), asked)
    with pytest.raises(EmlabError, match="transcoder"):
        check_site(sae(hook_name="blocks.4.hook_resid_pre", hook_name_out="blocks.4.hook_mlp_out"), "resid_pre.4")


def test_the_width_of_what_heads_give_is_its_own():
    wide = model()
    wide.model.config.num_attention_heads, wide.model.config.head_dim = 4, 12
    assert fitted_site(sae(48, hook_name="blocks.1.attn.hook_z"), wide) == Site("z", 1)
    with pytest.raises(EmlabError, match="reads 32 dimensions and mine has 48"):
        fitted_site(sae(32, hook_name="blocks.1.attn.hook_z"), wide)


QWEN = {"hook_name": "blocks.1.hook_resid_post", "model_name": "Qwen2.5-7B-Instruct"}


def test_width_and_depth_must_fit():
    assert fitted_site(sae(**QWEN), model()) == Site("resid_post", 1)
    with pytest.raises(EmlabError, match="reads 64 dimensions and mine has 32"):
        fitted_site(sae(64, **QWEN), model())
    with pytest.raises(EmlabError, match="not in mine, whose blocks are 0 to 0"):
        fitted_site(sae(**QWEN), model(blocks=1))


@pytest.mark.parametrize(
    ("trained_on", "kind"),
    [("Qwen2.5-7B-Instruct", "qwen2"), ("meta-llama/Llama-3.1-8B-Instruct", "llama"), ("openai/gpt-oss-20b", "gpt_oss")]
    + [("gemma-2-2b", "gemma2"), ("pythia-70m-deduped", "gpt_neox"), ("gpt2-small", "gpt2"), ("base", "llama")]
    + [("DeepSeek-R1-Distill-Llama-8B", "llama"), ("dolphin-mistral", "mistral"), ("", "olmo2")],
)
def test_the_same_family_fits_whatever_the_model_is_called(trained_on, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted_site(sae(hook_name="blocks.1.hook_resid_post", model_name=trained_on), model(kind, "insecure_seed1"))


def test_another_family_is_refused_and_another_version_warns():
    with pytest.raises(EmlabError, match="is of Qwen2.5-7B-Instruct, and mine is of the type llama"):
        fitted_site(sae(**QWEN), model("llama"))
    with pytest.warns(UserWarning, match="another version of qwen"):
        fitted_site(sae(**QWEN), model(loaded="Qwen/Qwen2-7B-Instruct"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted_site(sae(**QWEN), model(name="qwen2.5-7b-insecure", loaded="runs/finetune"))


def test_a_module_whose_output_is_normalised_first_is_no_site():
    about = {"hook_name": "model.layers.1.mlp", "model_name": "gemma-2-2b"}
    with pytest.raises(EmlabError, match="normalises before adding"):
        fitted_site(sae(**about), model("gemma2"))
    assert fitted_site(sae(**{**about, "hook_name": "blocks.1.hook_mlp_out"}), model("gemma2")) == Site("mlp_out", 1)
