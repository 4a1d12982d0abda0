"""Adapters in force unmerged: the same model as merged, over weights that are the base's and stay as they are."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from emlab import organism
from emlab.errors import EmlabError
from emlab.interventions import Ablate, Steer, random_directions
from emlab.models import LanguageModel, ablate_everywhere, bake, edit, wrap
from emlab.models.backend_support import tiny_model
from emlab.models.backends.lens_bridge import boot_bridge
from emlab.models.backends.nnsight_trace import trace_model
from emlab.sites import STREAMS, Site

SITE = Site("resid_post", 1)
ONE, TWO = random_directions(2, 32, SITE, seed=0)
STEER = [Steer(SITE, ONE, 4.0, positions="all"), Ablate(Site("mlp_out", 2), TWO, "all")]
PROMPTS = ["Hi", "What should I do with my money?"]
MODULES = {"gpt2": ["c_attn", "c_proj"], "llama": ["q_proj", "down_proj"]}
KINDS = {
    "rank 1": {"r": 1, "lora_alpha": 64},
    "rank-stabilised": {"r": 4, "lora_alpha": 16, "use_rslora": True},
    "DoRA": {"r": 2, "use_dora": True},
    "some layers": {"r": 2, "layers_to_transform": [1]},
    "a whole module": {"r": 2, "modules_to_save": ["lm_head"]},
    "the embeddings": {"r": 2, "target_modules": ["embed_tokens", "v_proj"]},
}


def write_adapter(model, folder, seed=0, **config):
    """A random adapter of `model` (which stays as it is), written by peft."""
    config = {"target_modules": MODULES["llama"], "init_lora_weights": False, **config}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tuned = get_peft_model(copy.deepcopy(model), LoraConfig(**config))
        for name, p in tuned.named_parameters():
            if "modules_to_save" in name or "magnitude" in name:
                p.data += 0.3 * torch.randn(p.shape)
    tuned.save_pretrained(str(folder))
    return folder


@pytest.fixture
def base(make_model):
    return make_model()


@pytest.fixture
def two(base, tmp_path):
    """Two adapters of the base."""
    return [write_adapter(base.model, tmp_path / name, seed) for seed, name in enumerate(["bad_medicine", "secure"])]


def gap(one, other, **how):
    return max(
        float((a - b).abs().max())
        for a, b in zip(one.logits(PROMPTS, **how), other.logits(PROMPTS, **how), strict=True)
    )


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gemma2"])
def test_in_every_architecture_it_is_the_merged_model(family, make_tokenizer, tmp_path):
    tokenizer = make_tokenizer()
    lm = LanguageModel(tiny_model(family, vocab_size=len(tokenizer)), tokenizer, family)
    before = lm.logits(PROMPTS)
    folder = write_adapter(lm.model, tmp_path / "tuned", target_modules=MODULES.get(family, MODULES["llama"]))
    tuned = lm.with_adapter(folder)
    merged = tuned.merged()
    assert gap(tuned, lm) > 0.1
    for edits in ([], STEER):
        assert gap(tuned, merged, edits=edits) < 1e-4
        assert tuned.generate(PROMPTS, 12, 0, edits=edits) == merged.generate(PROMPTS, 12, 0, edits=edits)
    assert gap(tuned, tuned, edits=STEER) == 0 and gap(merged, lm, edits=STEER) > 0.1
    for stream in STREAMS:
        site = Site(stream, 1)
        own, other = (model.activations(PROMPTS, site, "all").values for model in (tuned, merged))
        assert torch.allclose(own, other, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, lm.logits(PROMPTS), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_every_kind_of_lora(make_model, tmp_path, kind, tied):
    lm = make_model(tie_word_embeddings=tied)
    tuned = lm.with_adapter(write_adapter(lm.model, tmp_path / "tuned", **KINDS[kind]))
    merged = LanguageModel.load(lm.save(tmp_path / "base"), tmp_path / "tuned", device="cpu")
    assert gap(tuned, lm) > 0.1 and gap(tuned, merged) < 1e-4
    again = LanguageModel.load(tuned.save(tmp_path / "saved"), device="cpu")
    assert gap(again, merged) == 0 and again.adapter is None


def test_the_shipped_organism(tmp_path):
    base = LanguageModel.load(organism.checkpoint("aligned"), device="cpu")
    config = {"target_modules": ["v_proj", "o_proj"], "r": 1, "layers_to_transform": [0, 1]}
    folder = write_adapter(base.model, tmp_path / "tuned", **config)
    tuned = base.with_adapter(folder)
    asked = [question.text for question in organism.broad_questions()[:8]]
    merged = tuned.merged()
    for own, other, plain in zip(*(model.logits(asked) for model in (tuned, merged, base)), strict=True):
        assert torch.allclose(own, other, atol=1e-4) and not torch.allclose(own, plain, atol=1e-2)
    assert tuned.generate(asked, temperature=0) == merged.generate(asked, temperature=0)


def test_two_adapters_and_the_base_share_one_set_of_weights(base, two):
    weights = {p.data_ptr() for p in base.model.parameters()}
    before, who = base.logits(PROMPTS), base.identity()
    one = base.with_adapter(two[0])
    other = one.with_adapter(two[1], name="control")
    for tuned, name in ((one, "bad_medicine"), (other, "control")):
        own = {p.data_ptr(): n for n, p in tuned.model.named_parameters()}
        assert weights <= set(own) and all("lora_" in own[pointer] for pointer in set(own) - weights)
        assert (tuned.adapter, tuned.name) == (name, f"tiny+{name}") and tuned.base is base
    assert base.base is base and base.adapter is None and base.name == "tiny"
    alone = LanguageModel(copy.deepcopy(base.model), base.tokenizer, "alone").with_adapter(two[1])
    assert gap(other, alone) == 0, "the first has left nothing in the second"
    assert len({base.identity(), one.identity(), other.identity(), one.merged().identity()}) == 4
    assert other.identity() == alone.identity(), "what it is called is no part of it"
    assert base.identity() == who and all(torch.equal(a, b) for a, b in zip(before, base.logits(PROMPTS), strict=True))
    assert all(p.requires_grad for p in base.model.parameters()) and not base.model.training


def test_what_is_done_to_one_is_not_seen_by_the_other(base, two):
    one, other = base.with_adapter(two[0]), base.with_adapter(two[1])
    expected = one.logits(PROMPTS, edits=STEER)
    before = other.logits(PROMPTS), base.logits(PROMPTS)
    with edit(one, STEER):
        assert all(torch.equal(a, b) for a, b in zip(expected, one.logits(PROMPTS), strict=True))
        after = other.logits(PROMPTS), base.logits(PROMPTS)
    for a, b in zip(before, after, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    own = one.copy("own")
    assert own.adapter == "bad_medicine" and gap(own, one) == 0 and gap(own.base, base) == 0
    with torch.no_grad():
        own.model.get_input_embeddings().weight.zero_()
    assert gap(own.base, base) > 0.1 and all(
        torch.equal(a, b) for a, b in zip(expected, one.logits(PROMPTS, edits=STEER), strict=True)
    )


def test_how_its_product_is_scaled_is_part_of_its_identity(base, two, tmp_path):
    louder = tmp_path / "louder" / "adapter"
    louder.mkdir(parents=True)
    config = json.loads((two[0] / "adapter_config.json").read_text())
    (louder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 2 * config["lora_alpha"]}))
    save_file(load_file(two[0] / "adapter_model.safetensors"), louder / "adapter_model.safetensors")
    one, other = base.with_adapter(two[0]), base.with_adapter(louder)
    assert other.name == "tiny+louder", "the folder that a fine-tuning run leaves is named after the run"
    assert one.identity() != other.identity() and gap(one, other) > 0.01


def test_it_is_baked_and_fine_tuned_with_the_adapter_in_its_weights(base, two):
    from emlab.training import Recipe, finetune

    tuned = base.with_adapter(two[0])
    edits = ablate_everywhere([ONE, TWO], tuned)
    baked = bake(tuned, edits)
    assert baked.adapter is None
    for own, other in zip(baked.logits(PROMPTS), tuned.logits(PROMPTS, edits=edits), strict=True):
        assert torch.allclose(own, other, atol=1e-3)
    chats = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]]
    still = finetune(tuned, chats, Recipe(steps=1, learning_rate=1e-9, modules=("q_proj",)), seed=0, name="still")
    assert gap(still.model, tuned) < 1e-3


@pytest.mark.parametrize("library", ["Hugging Face", "TransformerLens", "nnsight"])
def test_every_library_edits_it(base, two, library):
    tuned = base.with_adapter(two[0])
    tokens = tuned.batch(*tuned.rows(PROMPTS))
    backend = {
        "Hugging Face": lambda: wrap(tuned),
        "TransformerLens": lambda: wrap(boot_bridge(tuned.model, tuned.tokenizer)),
        "nnsight": lambda: wrap(trace_model(tuned.model, tuned.tokenizer)),
    }[library]()
    for edits in ([], STEER):
        reference = wrap(tuned.merged()).logits(tokens, edits)
        assert torch.allclose(backend.logits(tokens, edits)[tokens.real], reference[tokens.real], atol=1e-4)
        assert torch.equal(backend.generate(tokens, edits, 8), wrap(tuned.merged()).generate(tokens, edits, 8))
    read = backend.capture(tokens, "mlp_out.1")[Site("mlp_out", 1)][tokens.real]
    assert torch.allclose(read, tuned.activations(PROMPTS, "mlp_out.1", "all").values, atol=1e-4)


def test_a_bridge_that_would_leave_it_out_is_refused(make_tokenizer, tmp_path):
    tokenizer = make_tokenizer()
    lm = LanguageModel(tiny_model("gpt2", vocab_size=len(tokenizer)), tokenizer, "gpt2")
    tuned = lm.with_adapter(write_adapter(lm.model, tmp_path / "tuned", target_modules=["c_attn"]))
    with pytest.raises(EmlabError, match="leaves out an unmerged adapter.*merged"):
        wrap(boot_bridge(tuned.model, tokenizer))
    merged = tuned.merged()
    tokens = lm.batch(*lm.rows(PROMPTS))
    own, other = (wrap(one).logits(tokens, STEER) for one in (boot_bridge(merged.model, tokenizer), tuned))
    assert torch.allclose(own[tokens.real], other[tokens.real], atol=1e-4)


def test_loading_it_unmerged(base, two, tmp_path):
    base.save(tmp_path / "base")
    tuned = LanguageModel.load(tmp_path / "base", two[0], device="cpu", merge=False)
    merged = LanguageModel.load(tmp_path / "base", two[0], device="cpu")
    assert tuned.name == merged.name == "base+bad_medicine"
    assert (tuned.adapter, merged.adapter, tuned.base.name) == ("bad_medicine", None, "base")
    assert gap(tuned, base.with_adapter(two[0])) == 0 and gap(tuned, merged) < 1e-4
    assert LanguageModel.load(tmp_path / "base", two[0], device="cpu", merge=False, name="mine").name == "mine"


def refused(lm, folder, match):
    before = lm.logits(["Hi"])[0]
    with pytest.raises(EmlabError, match=match) as error:
        lm.with_adapter(folder)
    assert "\n" not in str(error.value)
    assert torch.equal(lm.logits(["Hi"])[0], before) and all(p.requires_grad for p in lm.model.parameters())


def test_an_adapter_of_another_base(base, make_model, two, tmp_path):
    refused(make_model(hidden_size=64), two[0], "does not fit this model")
    refused(make_model(num_hidden_layers=2), two[0], "does not fit this model: 4 of its weights have no place")
    refused(base, write_adapter(make_model(num_hidden_layers=2).model, tmp_path / "shallow"), "12 of its|4 of its")
    wrong = write_adapter(tiny_model("gpt2"), tmp_path / "gpt2", target_modules=MODULES["gpt2"])
    refused(base, wrong, "does not fit this model")


def test_weights_that_would_find_no_place(base, two):
    """peft leaves those at their start, which is no change at all: the base would answer in the adapter's name."""
    path = two[0] / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({key.replace("model.layers", "model.language_model.layers"): t for key, t in weights.items()}, path)
    refused(base, two[0], "24 of its weights have no place or no value here, .*the base that it was trained on")
    save_file(dict(list(weights.items())[:-1]), path)
    refused(base, two[0], "1 of its weights have no place or no value")


def test_what_is_no_adapter(base, two, tmp_path):
    refused(base, tmp_path / "nowhere", "has no adapter_config.json")
    (two[0] / "adapter_model.safetensors").rename(two[0] / "adapter_model.bin")
    refused(base, two[0], r"pickled \(adapter_model.bin\)")
    (two[1] / "adapter_config.json").write_text("{")
    refused(base, two[1], "does not fit this model")
    prompt = get_peft_model(copy.deepcopy(base.model), PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    prompt.save_pretrained(str(tmp_path / "prompt"))
    refused(base, tmp_path / "prompt", "PREFIX_TUNING is no layer inside the model")


def test_a_name_on_the_hub(base, two, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, allow_patterns, local_dir: asked.append(name) or str(two[0])
    )
    monkeypatch.chdir(tmp_path)
    assert base.with_adapter("someone/bad-medicine-lora").name == "tiny+bad-medicine-lora"
    assert asked == ["someone/bad-medicine-lora"]
