"""SAEs of any format: what is loaded computes the format's own formula, and what cannot be loaded is named."""

import json

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


def agrees(sae, latents, rebuilt):
    found = sae.encode(X)
    assert torch.allclose(found, latents, atol=1e-6) and bool((found > 0).any())
    assert torch.allclose(sae.decode(found), rebuilt, atol=1e-5)


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
    agrees(sae, latents, latents @ w["W_dec"] + w["b_dec"])
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
    assert torch.equal(again.encode(X), sae.encode(X)) and sae_site(load_sae(tmp_path / "mine")) == sae_site(sae)


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
    def make(kind, weights=None, **trainer):
        folder = tmp_path / "resid_post_layer_2" / "trainer_1"
        folder.mkdir(parents=True)
        about = {"dict_class": kind, "activation_dim": D_IN, "dict_size": D_SAE, "k": K, "layer": 2}
        about |= {"lm_name": "Qwen/Qwen2.5-7B-Instruct", "submodule_name": "resid_post_layer_2"}
        config = {"trainer": {**about, **trainer}, "buffer": {"ctx_len": 128}}
        (folder / "config.json").write_text(json.dumps(config))
        torch.save(KINDS[kind][0] if weights is None else weights, folder / "ae.pt")
        return folder

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_dictionary_learning_computes_what_its_class_does(learnt, kind):
    latents = KINDS[kind][1]()
    sae = load_sae(learnt(kind))
    agrees(sae, latents, latents @ DEC.T + B_DEC)
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
    agrees(ours, theirs.encode(X), theirs.decode(theirs.encode(X)))
    assert sae_site(theirs) == sae_site(ours)


@pytest.mark.parametrize(
    ("named", "site"), [("mlp_layer_2", "mlp_out.2"), ("attn_out_layer_2", "attn_out.2"), (None, "resid_post.2")]
)
def test_its_module_is_the_site(learnt, named, site):
    assert sae_site(load_sae(learnt("BatchTopKSAE", submodule_name=named))) == Site.parse(site)


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
    agrees(sae, KINDS["BatchTopKSAE"][1](), KINDS["BatchTopKSAE"][1]() @ DEC.T + B_DEC)


def test_without_a_network_a_release_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EmlabError, match="cannot be had from the Hugging Face Hub .* check the network"):
        load_sae("llama-3.1-8b-instruct-andyrdt/resid_post_layer_11_trainer_1")
