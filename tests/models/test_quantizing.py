"""Weights in 4 and 8 bits: refused before anything is loaded where they cannot be had, else nearly the same model."""

import importlib.util

import pytest
import torch
from peft import LoraConfig, get_peft_model

from emlab.errors import EmlabError
from emlab.interventions import Steer, random_directions
from emlab.models import LanguageModel, bake, edit, wrap
from emlab.models.quantizing import quantization
from emlab.sites import Site

HERE = importlib.util.find_spec("bitsandbytes") is not None
SITE = Site("resid_post", 1)
(ONE,) = random_directions(1, 64, SITE, seed=0)
STEER = [Steer(SITE, ONE, 4.0, positions="all")]
PROMPTS = ["Hi", "What should I do with my money?"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plain(make_model):
    lm = make_model(hidden_size=64, intermediate_size=128)
    with torch.no_grad():
        for weight in lm.model.parameters():
            weight *= 0.3 if weight.ndim == 2 else 1.0
    return lm


@pytest.fixture(scope="module")
def folder(plain, tmp_path_factory):
    return plain.save(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture(scope="module")
def adapter(plain, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapters") / "bad_medicine"
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(plain.copy().model, config).save_pretrained(str(out))
    return out


def refused(match, **how):
    with pytest.raises(EmlabError, match=match) as error:
        LanguageModel.load(device="cpu", **how)
    assert "\n" not in str(error.value)


def test_a_kind_that_is_none(folder):
    refused("There is no quantization '3bit'; choose 4bit or 8bit", path=folder, quantize="3bit")


def test_merging_is_refused_before_anything_is_loaded(adapter, tmp_path):
    refused("cannot take in an adapter.*merge=False", path=tmp_path, adapter=adapter, quantize="4bit", merge=True)


@pytest.mark.skipif(HERE, reason="bitsandbytes is installed")
def test_without_bitsandbytes_nothing_is_loaded(folder, monkeypatch):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    for kind in ("4bit", "8bit"):
        refused("need bitsandbytes, which is not installed.*pip install", path=folder, quantize=kind)


needs = pytest.mark.skipif(not HERE, reason="needs bitsandbytes")


@needs
def test_what_transformers_is_told():
    four = quantization("4bit", CPU, torch.bfloat16)
    assert four.load_in_4bit and four.bnb_4bit_quant_type == "nf4" and four.bnb_4bit_use_double_quant
    assert four.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantization("8bit", CPU, torch.float32).load_in_8bit
    with pytest.raises(EmlabError, match="holds no weights on meta, only on cpu, cuda"):
        quantization("4bit", torch.device("meta"), torch.float32)


@needs
@pytest.mark.parametrize(("kind", "near"), [("4bit", 0.6), ("8bit", 0.1)])
def test_it_is_the_same_model_up_to_the_rounding_of_its_weights(plain, folder, adapter, tmp_path, kind, near):
    lm = LanguageModel.load(folder, device="cpu", quantize=kind)
    full, held = ({n: p.nbytes for n, p in m.model.named_parameters()} for m in (plain, lm))
    name = "model.layers.0.mlp.up_proj.weight"
    assert held[name] == full[name] // {"4bit": 8, "8bit": 4}[kind] and str(lm).endswith(str(plain).split(", ")[1])
    assert lm.quantized and not plain.quantized and lm.identity() != plain.identity()
    for own, other in zip(lm.logits(PROMPTS), plain.logits(PROMPTS), strict=True):
        assert 0 < (own - other).norm() / other.norm() < near
    before, steered = lm.logits(PROMPTS), lm.logits(PROMPTS, edits=STEER)
    with edit(lm, STEER):
        assert torch.equal(lm.logits(PROMPTS)[0], steered[0]) and not torch.allclose(steered[0], before[0], atol=0.1)
    tokens = lm.batch(*lm.rows(PROMPTS))
    assert torch.equal(wrap(lm).logits(tokens, STEER)[1][tokens.real[1]], steered[1])
    assert len(lm.generate(PROMPTS, 5, 0, edits=STEER)) == 2

    tuned = LanguageModel.load(folder, adapter, device="cpu", quantize=kind)
    assert tuned.adapter == "bad_medicine" and tuned.name == f"plain-{kind}+bad_medicine"
    merged = LanguageModel.load(folder, adapter, device="cpu")
    for own, other, without in zip(*(m.logits(PROMPTS) for m in (tuned, merged, plain)), strict=True):
        assert (own - other).norm() / other.norm() < near < (own - without).norm() / without.norm()
    assert torch.equal(tuned.base.logits(PROMPTS)[0], before[0])
    assert sum(p.nbytes for p in tuned.model.parameters() if p.dtype in (torch.int8, torch.uint8)) == sum(
        p.nbytes for p in lm.model.parameters() if p.dtype in (torch.int8, torch.uint8)
    )
    pointers = {p.data_ptr() for p in tuned.base.model.parameters()}
    assert pointers <= {p.data_ptr() for p in tuned.model.parameters()}
    for attempt in (tuned.merged, lm.merged, lambda: bake(lm, STEER), lambda: tuned.save(tmp_path / "tuned")):
        with pytest.raises(EmlabError, match="quantised cannot take in an adapter or an edit"):
            attempt()
    refused("cannot take in an adapter", path=folder, adapter=adapter, quantize=kind, merge=True)

    again = LanguageModel.load(lm.save(tmp_path / "saved"), device="cpu")
    # bitsandbytes writes the doubly quantised constants of 4 bits with a little rounding of its own.
    assert again.quantized and (again.logits(PROMPTS)[0] - before[0]).norm() / before[0].norm() < 0.02
    refused(
        f"quantised already \\(bitsandbytes\\); leave out quantize='{kind}'", path=tmp_path / "saved", quantize=kind
    )
    refused("cannot take in an adapter", path=tmp_path / "saved", adapter=adapter, merge=True)


@pytest.mark.skipif(HERE, reason="bitsandbytes is installed")
def test_a_folder_that_is_quantised_already_needs_it_too(plain, tmp_path):
    lm = plain.copy()
    lm.model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    lm.model.config.save_pretrained(plain.save(tmp_path / "model"))
    refused("need bitsandbytes", path=tmp_path / "model")
