"""SAEs of any format: what is loaded computes the format's own formula, and what cannot be loaded is named."""

import json

import httpx2
import pytest
import torch
from sae_lens import SAE
from sae_lens.loading import pretrained_sae_loaders
from safetensors.torch import save_file

from emlab.errors import EmlabError
from emlab.saes import load_sae, neuronpedia_url, sae_site, save_sae
from emlab.saes.loading import release_of
from emlab.sites import Site

D_IN, D_SAE, K = 6, 10, 3


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = draw(7, D_IN, seed=9)


def largest(values, k):
    """All but the k largest of each row set to zero."""
    kept = torch.zeros_like(values)
    top = values.topk(k, dim=-1)
    return kept.scatter(-1, top.indices, top.values)


def agrees(sae, latents, rebuilt, rows):
    """The same reconstruction, and the same latents in units of what each row (d_sae, d_in) adds."""
    found = sae.encode(X)
    assert torch.allclose(found, latents * rows.norm(dim=1), atol=1e-5) and bool((found > 0).any())
    assert torch.allclose(sae.decode(found), rebuilt, atol=1e-5)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(D_SAE), atol=1e-6)


# --------------------------------------------------------------------------------------------------------- sparsify


@pytest.fixture
def sparsify(tmp_path):
    """A folder as eai-sparsify 1.3 writes it: `SparseCoder.save_to_disk`."""

    def make(hookpoint="layers.1", weights=None, **config):
        folder = tmp_path / "run" / hookpoint
        folder.mkdir(parents=True)
        cfg = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": D_SAE, "k": K}
        cfg |= {"multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D_IN}
        (folder / "cfg.json").write_text(json.dumps({**cfg, **config}))
        shapes = {"encoder.weight": (D_SAE, D_IN), "encoder.bias": (D_SAE,), "W_dec": (D_SAE, D_IN), "b_dec": (D_IN,)}
        drawn = {name: draw(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
        save_file(weights or drawn, folder / "sae.safetensors")
        (folder.parent / "config.json").write_text(json.dumps({"model": "HuggingFaceTB/SmolLM2-135M", "ctx_len": 64}))
        return folder, drawn

    return make


@pytest.mark.parametrize("normalize_decoder", [True, False])
def test_sparsify_subtracts_the_decoder_bias_and_decodes_with_rows(sparsify, normalize_decoder):
    folder, w = sparsify(normalize_decoder=normalize_decoder)
    latents = largest(((X - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]).relu(), K)
    sae = load_sae(folder)
    agrees(sae, latents, latents @ w["W_dec"] + w["b_dec"], w["W_dec"])
    assert sae.W_dec.dtype == torch.float32, "SAELens' own converter would round to bfloat16"
    assert sae.cfg.metadata.model_name == "HuggingFaceTB/SmolLM2-135M"


def test_sparsify_as_sparsify_itself_computes_it(sparsify):
    sparsify_library = pytest.importorskip("sparsify", reason="eai-sparsify is not installed")
    folder, _ = sparsify()
    out = sparsify_library.SparseCoder.load_from_disk(folder)(X).sae_out
    sae = load_sae(folder)
    assert torch.allclose(sae.decode(sae.encode(X)), out, atol=1e-5)


@pytest.mark.parametrize(
    ("hookpoint", "site"),
    [("layers.1", "resid_post.1"), ("layers.11.mlp", "mlp_out.11"), ("layers.3.self_attn", "attn_out.3")]
    + [("h.2", "resid_post.2")],
)
def test_a_sparsify_folder_is_named_after_its_site(sparsify, hookpoint, site):
    assert sae_site(load_sae(sparsify(hookpoint)[0])) == Site.parse(site)


@pytest.mark.parametrize("wrong", [{"transcode": True}, {"skip_connection": True}, {"activation": "groupmax"}])
def test_what_sparsify_has_and_no_sae_computes_is_refused(sparsify, wrong):
    with pytest.raises(EmlabError, match=next(iter(wrong)).split("_")[0]):
        load_sae(sparsify(**wrong)[0])


def test_it_is_saved_as_sae_lens_saves(sparsify, tmp_path):
    sae = load_sae(sparsify()[0])
    again = SAE.load_from_disk(save_sae(sae, tmp_path / "mine"))
    assert torch.allclose(again.decode(again.encode(X)), sae.decode(sae.encode(X)), atol=1e-5)
    assert torch.allclose(load_sae(tmp_path / "mine").encode(X), sae.encode(X), atol=1e-5)
    assert sae_site(load_sae(tmp_path / "mine")) == sae_site(sae)


# ----------------------------------------------------------------------------------------------- dictionary_learning

ENC, DEC = draw(D_SAE, D_IN, seed=1), draw(D_IN, D_SAE, seed=2)
B_ENC, B_DEC, R_MAG, B_MAG = draw(D_SAE, seed=3), draw(D_IN, seed=4), draw(D_SAE, seed=5), draw(D_SAE, seed=6)
THRESHOLD = draw(D_SAE, seed=7).abs()


def linear(bias_of="b_dec", **more):
    return {"encoder.weight": ENC, "encoder.bias": B_ENC, "decoder.weight": DEC, bias_of: B_DEC, **more}


def pre(x):
    return x @ ENC.T + B_ENC


def over(values, threshold):
    return values.relu() * (values > threshold)


MATRICES = {"W_enc": ENC.T.clone(), "b_enc": B_ENC, "W_dec": DEC.T.clone(), "b_dec": B_DEC}
GATED = {"encoder.weight": ENC, "decoder.weight": DEC, "decoder_bias": B_DEC}
GATED |= {"r_mag": R_MAG, "mag_bias": B_MAG, "gate_bias": B_ENC}
LEARNT = {"k": torch.tensor(K), "threshold": torch.tensor(0.8)}
KINDS = {
    "AutoEncoder": (linear("bias"), lambda: pre(X - B_DEC).relu()),
    "AutoEncoderNew": (linear("decoder.bias"), lambda: pre(X).relu()),
    "AutoEncoderTopK": (linear(**LEARNT), lambda: largest(pre(X - B_DEC).relu(), K)),
    "BatchTopKSAE": (linear(**LEARNT), lambda: over(pre(X - B_DEC), 0.8)),
    "MatryoshkaBatchTopKSAE": (
        {**MATRICES, **LEARNT, "group_sizes": torch.tensor([4, 6])},
        lambda: over(pre(X - B_DEC), 0.8),
    ),
    "JumpReluAutoEncoder": ({**MATRICES, "threshold": THRESHOLD}, lambda: over(pre(X), THRESHOLD)),
    "GatedAutoEncoder": (
        GATED,
        lambda: ((X - B_DEC) @ ENC.T * R_MAG.exp() + B_MAG).relu() * ((X - B_DEC) @ ENC.T + B_ENC > 0),
    ),
}
"""The weights of each class as it saves them, and what its `encode` computes (dictionary_learning 0.1.0)."""


@pytest.fixture
def learnt(tmp_path):
    def make(kind, buffer=None, weights=None, **trainer):
        folder = tmp_path / "resid_post_layer_2" / "trainer_1"
        folder.mkdir(parents=True)
        about = {"dict_class": kind, "activation_dim": D_IN, "dict_size": D_SAE, "k": K, "layer": 2}
        about |= {"lm_name": "Qwen/Qwen2.5-7B-Instruct", "submodule_name": "resid_post_layer_2"}
        config = {"trainer": {**about, **trainer}, "buffer": {"ctx_len": 128, **(buffer or {})}}
        (folder / "config.json").write_text(json.dumps(config))
        torch.save(KINDS[kind][0] if weights is None else weights, folder / "ae.pt")
        return folder

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_dictionary_learning_computes_what_its_class_does(learnt, kind):
    latents = KINDS[kind][1]()
    sae = load_sae(learnt(kind))
    agrees(sae, latents, latents @ DEC.T + B_DEC, DEC.T)
    assert sae_site(sae) == Site("resid_post", 2)
    assert sae.cfg.metadata.model_name == "Qwen2.5-7B-Instruct"


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"AutoEncoderNew"}))
def test_a_folder_and_sae_lens_own_converter_agree(learnt, kind, monkeypatch):
    """SAELens reads these from the Hub, which is where releases come from; what it downloads is the folder here."""
    folder = learnt(kind)
    monkeypatch.setattr(pretrained_sae_loaders, "hf_hub_download", lambda filename, **_: str(folder / filename[2:]))
    theirs = SAE.from_pretrained(
        "someone/else", ".", converter=pretrained_sae_loaders.dictionary_learning_sae_huggingface_loader_1
    )
    ours = load_sae(folder)
    agrees(ours, theirs.encode(X), theirs.decode(theirs.encode(X)), theirs.W_dec)
    assert sae_site(theirs) == sae_site(ours)


@pytest.mark.parametrize(
    ("named", "io", "site"),
    [
        ("resid_post_layer_2", None, "resid_post.2"),  # before there was the key
        ("resid_post_layer_2", "out", "resid_post.2"),
        ("resid_post_layer_2", "in", "resid_pre.2"),
        ("resid_out_layer2", "out", "resid_post.2"),
        ("resid_mid_layer_2", "out", "resid_mid.2"),
        ("mlp_layer_2", "out", "mlp_out.2"),
        ("mlp2", "out", "mlp_out.2"),
        ("attn_out_layer_2", "out", "attn_out.2"),
        ("attention_2", "out", "attn_out.2"),
        ("gpt_neox.layers.2", "out", "resid_post.2"),
        ("gpt_neox.layers.2", "in", "resid_pre.2"),
        ("gpt_neox.layers.2.mlp", "out", "mlp_out.2"),
    ],
)
def test_its_module_and_the_side_of_it_are_the_site(learnt, named, io, site):
    folder = learnt("BatchTopKSAE", {} if io is None else {"io": io}, submodule_name=named)
    assert sae_site(load_sae(folder)) == Site.parse(site)


@pytest.mark.parametrize(("named", "said"), [(None, "no module"), ("ln_2_layer_2", "the module 'ln_2_layer_2'")])
def test_where_the_module_is_not_told_the_site_is_asked_for(learnt, named, said):
    """It could be the stream, the MLP or attention: a guess would read latents where they mean nothing."""
    sae = load_sae(learnt("BatchTopKSAE", submodule_name=named))
    with pytest.raises(EmlabError, match=f"names the layer 2 and {said}.*: write submodule_name into its config.json"):
        sae_site(sae)


@pytest.mark.parametrize(
    ("named", "io", "said"),
    [
        ("mlp_layer_2", "in", "what goes into mlp_layer_2"),
        ("resid_post_layer_2", "in_and_out", "trained on in_and_out"),
    ],
)
def test_inputs_that_are_no_site_are_refused(learnt, named, io, said):
    with pytest.raises(EmlabError, match=said):
        load_sae(learnt("BatchTopKSAE", {"io": io}, submodule_name=named))


def test_other_dictionaries_are_refused(learnt):
    folder = learnt("BatchTopKSAE")
    config = json.loads((folder / "config.json").read_text())
    config["trainer"]["dict_class"] = "CrossCoder"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EmlabError, match="holds a CrossCoder, and only AutoEncoder"):
        load_sae(folder)


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


def test_a_pickle_that_would_run_code_is_refused(learnt, capsys):
    with pytest.raises(EmlabError, match="cannot be loaded"):
        load_sae(learnt("BatchTopKSAE", weights={"encoder.weight": Evil()}))
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 cut off"])
def test_a_damaged_pickle_is_one_sentence(learnt, content):
    folder = learnt("BatchTopKSAE")
    (folder / "ae.pt").write_bytes(content)
    with pytest.raises(EmlabError, match=r"cannot be loaded .*restore or retrain it\.$"):
        load_sae(folder)


def test_a_missing_weight_is_named(learnt):
    weights = {k: v for k, v in KINDS["BatchTopKSAE"][0].items() if k != "threshold"}
    with pytest.raises(EmlabError, match="KeyError: 'threshold'"):
        load_sae(learnt("BatchTopKSAE", weights=weights))


def test_weights_that_are_not_finite_are_refused(learnt):
    broken = ENC.clone()
    broken[0, 0] = torch.nan
    with pytest.raises(EmlabError, match="not finite, in W_enc"):
        load_sae(learnt("AutoEncoder", weights={**linear("bias"), "encoder.weight": broken}))


# ------------------------------------------------------------------------------------------------ folders and releases


def test_a_folder_of_folders_says_to_name_one(sparsify):
    folder, _ = sparsify("layers.7")
    with pytest.raises(EmlabError, match=r"name one of them, such as layers\.7"):
        load_sae(folder.parent)


def test_a_folder_in_no_format_says_what_is_missing(tmp_path):
    with pytest.raises(EmlabError, match=r"cfg\.json and sae_weights\.safetensors missing"):
        load_sae(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EmlabError, match=r"ae\.pt missing"):
        load_sae(tmp_path)


PUBLISHED = {
    "qwen2.5-7b-instruct-andyrdt": ("resid_post_layer_{}_trainer_1", (3, 7, 11, 15, 19, 23, 27)),
    "llama-3.1-8b-instruct-andyrdt": ("resid_post_layer_{}_trainer_1", (3, 7, 11, 15, 19, 23, 27)),
    "gpt-oss-20b-andyrdt": ("resid_post_layer_{}_trainer_0", (3, 7, 11, 15, 19, 23)),
}


@pytest.mark.parametrize("release", PUBLISHED)
def test_the_published_saes_are_in_sae_lens_list(release):
    form, layers = PUBLISHED[release]
    for layer in layers:
        assert release_of(f"{release}/{form.format(layer)}") == (release, form.format(layer))


def test_ids_with_slashes_and_unknown_ones():
    named = "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
    assert release_of(named) == tuple(named.split("/", 1))
    assert release_of("my_folder/sae") is None and release_of("./qwen2.5-7b-instruct-andyrdt/x") is None
    with pytest.raises(EmlabError, match="among its 7 are resid_post_layer_1[0-9]_trainer_1"):
        load_sae("qwen2.5-7b-instruct-andyrdt/resid_post_layer_11")
    with pytest.raises(EmlabError, match="did you mean the release qwen2.5-7b-instruct-andyrdt"):
        load_sae("qwen2.5-7b-instruct-andrydt/resid_post_layer_11_trainer_1")


def test_a_release_comes_from_the_hub_with_its_place_on_neuronpedia(learnt, monkeypatch, tmp_path):
    """The download is replaced by a local file of the published form; all else is the real path."""
    folder = learnt("BatchTopKSAE", layer=11)
    asked = []

    def download(repo_id, filename, **_):
        asked.append((repo_id, filename))
        return str(folder / filename.rpartition("/")[2])

    monkeypatch.setattr(pretrained_sae_loaders, "hf_hub_download", download)
    sae = load_sae("qwen2.5-7b-instruct-andyrdt/resid_post_layer_11_trainer_1")
    assert ("andyrdt/saes-qwen2.5-7b-instruct", "resid_post_layer_11/trainer_1/ae.pt") in asked
    assert sae_site(sae) == Site("resid_post", 11)
    page = "https://www.neuronpedia.org/qwen2.5-7b-it/11-resid-post-aa/5"
    assert neuronpedia_url(sae, 5) == page
    assert neuronpedia_url(load_sae(save_sae(sae, tmp_path / "kept")), 5) == page, "it is kept with the SAE"
    agrees(sae, KINDS["BatchTopKSAE"][1](), KINDS["BatchTopKSAE"][1]() @ DEC.T + B_DEC, DEC.T)


def test_without_a_network_a_release_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EmlabError, match="cannot be had from the Hugging Face Hub .* check the network"):
        load_sae("llama-3.1-8b-instruct-andyrdt/resid_post_layer_11_trainer_1")


def test_a_hub_that_breaks_off_is_one_sentence(monkeypatch):
    def broken(*_, **__):
        raise httpx2.ReadTimeout("the read timed out")

    monkeypatch.setattr(pretrained_sae_loaders, "hf_hub_download", broken)
    with pytest.raises(EmlabError, match="cannot be had from the Hugging Face Hub .* check the network"):
        load_sae("llama-3.1-8b-instruct-andyrdt/resid_post_layer_11_trainer_1")


# ------------------------------------------------------------------------------------- what SAELens' own configs leave


@pytest.fixture
def kept(tmp_path):
    """A TopK SAE in SAELens' format, with some keys of its config set, or left out (None)."""

    def make(**changes):
        config = {"architecture": "topk", "d_in": D_IN, "d_sae": D_SAE, "k": K, "metadata": {"hook_name": "blocks.1"}}
        sae = SAE.from_dict(config)
        sae.save_model(tmp_path / "sae")
        written = json.loads((tmp_path / "sae" / "cfg.json").read_text())
        written = {name: value for name, value in {**written, **changes}.items() if value is not None}
        (tmp_path / "sae" / "cfg.json").write_text(json.dumps(written))
        return tmp_path / "sae"

    return make


@pytest.mark.parametrize("k", [16.0, 0, -1, D_SAE + 1, "3", True])
def test_a_k_that_keeps_no_number_of_latents_is_named(kept, k):
    with pytest.raises(EmlabError, match=rf"k of the SAE in .* is {k!r}: write a whole number from 1 to {D_SAE}"):
        load_sae(kept(k=k))


def test_a_topk_that_does_not_say_its_k_is_not_taken_for_one_of_100(kept):
    with pytest.raises(EmlabError, match="does not say how many latents are kept: write it as k"):
        load_sae(kept(k=None))


def test_a_config_without_a_type_is_read_as_float32_and_that_is_said(kept):
    folder = kept(dtype=None)
    with pytest.warns(UserWarning, match="names no dtype; the SAE is read as float32"):
        assert load_sae(folder).W_dec.dtype == torch.float32


def test_an_sae_of_what_heads_give_reads_them_side_by_side(kept):
    hook = {"hook_name": "blocks.5.attn.hook_z", "sae_lens_version": "6.54.12"}
    sae = load_sae(kept(reshape_activations="hook_z", metadata=hook))
    assert sae_site(sae) == Site("z", 5)
    assert sae.encode(X).shape == (len(X), D_SAE) and sae.decode(sae.encode(X)).shape == X.shape
    assert sae_site(load_sae(kept(metadata={**hook, "hook_head_index": 3}))) == Site("z", 5, 3)


# ----------------------------------------------------------------------------------------- Gemma Scope 2 and Qwen Scope


@pytest.fixture
def gemma(tmp_path):
    """A folder as google/gemma-scope-2-1b-pt has it."""

    def make(place="resid_post", hook="model.layers.17.output", **changes):
        folder = tmp_path / "gemma-scope-2-1b-pt" / place / "layer_17_width_16k_l0_medium"
        folder.mkdir(parents=True)
        about = {"architecture": "jump_relu", "model_name": "google/gemma-v3-1b-pt", "hf_hook_point_in": hook}
        (folder / "config.json").write_text(json.dumps({**about, **changes}))
        shapes = {"w_enc": (D_IN, D_SAE), "w_dec": (D_SAE, D_IN), "b_enc": (D_SAE,), "b_dec": (D_IN,)}
        weights = {name: draw(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
        weights["threshold"] = draw(D_SAE, seed=7).abs()
        save_file(weights, folder / "params.safetensors")
        return folder, weights

    return make


def test_gemma_scope_2_computes_jumprelu_without_taking_the_bias_from_its_input(gemma):
    folder, w = gemma()
    sae, before = load_sae(folder), X @ w["w_enc"] + w["b_enc"]
    latents = torch.where(before > w["threshold"], before, 0.0)
    agrees(sae, latents, latents @ w["w_dec"] + w["b_dec"], w["w_dec"])
    assert sae_site(sae) == Site("resid_post", 17) and sae.cfg.metadata.model_name == "google/gemma-3-1b-pt"


@pytest.mark.parametrize(
    ("place", "hook", "site"),
    [
        ("attn_out", "model.layers.17.self_attn.o_proj.input", "z.17"),
        ("mlp_out", "model.layers.17.post_feedforward_layernorm.output", "mlp_out.17"),
    ],
)
def test_the_sites_of_gemma_scope_2(gemma, place, hook, site):
    assert sae_site(load_sae(gemma(place, hook)[0])) == Site.parse(site)


def test_a_transcoder_of_gemma_scope_2_is_refused(gemma):
    folder, _ = gemma("transcoder", "model.layers.17.in", hf_hook_point_out="model.layers.17.out")
    with pytest.raises(EmlabError, match="holds a transcoder or crosscoder of Gemma Scope 2 and no SAE"):
        load_sae(folder)


@pytest.fixture
def qwen(tmp_path):
    """A folder as Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50 has it, with two blocks and fewer latents kept."""

    def make(named=f"SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}"):
        folder = tmp_path / named
        folder.mkdir()
        shapes = {"W_enc": (D_SAE, D_IN), "W_dec": (D_IN, D_SAE), "b_enc": (D_SAE,), "b_dec": (D_IN,)}
        weights = {name: draw(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
        for block in (2, 10):
            torch.save(weights, folder / f"layer{block}.sae.pt")
        return folder, weights

    return make


def test_qwen_scope_computes_topk(qwen):
    folder, w = qwen()
    sae = load_sae(folder / "layer10.sae.pt")
    latents = largest(X @ w["W_enc"].T + w["b_enc"], K).relu()
    agrees(sae, latents, latents @ w["W_dec"].T + w["b_dec"], w["W_dec"].T)
    assert sae_site(sae) == Site("resid_post", 10) and sae.cfg.metadata.model_name == "Qwen/Qwen3-1.7B-Base"


def test_a_folder_of_qwen_scope_is_told_and_its_k_is_not_guessed(qwen):
    folder, _ = qwen("saes")
    with pytest.raises(EmlabError, match=r"holds 2 SAEs of Qwen Scope, a file for each block: name one, .*layer2.sae"):
        load_sae(folder)
    with pytest.raises(EmlabError, match="how many latents it keeps stands in its folder's name alone"):
        load_sae(folder / "layer2.sae.pt")


def test_the_first_gemma_scope_is_told(tmp_path):
    (tmp_path / "params.npz").write_bytes(b"")
    with pytest.raises(EmlabError, match="an SAE of the first Gemma Scope, whose files do not say what it reads"):
        load_sae(tmp_path)
