"""Interpretation as a whole: on Llama, Qwen2 and Gemma types, with and without names, saved and loaded."""

import copy
import math
import random

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from emlab.data import LabelledDocument
from emlab.discovery import Interpretation, InterpretSettings, Namer, interpret
from emlab.discovery.interpretation import POOL, _drawn
from emlab.errors import EmlabError
from emlab.models import Endpoint, LanguageModel
from emlab.saes import Exclusions, encode
from emlab.sites import Site

TEXTS = [
    LabelledDocument(f"x {random.Random(i).choices('abcdefgh', k=12)}", {"half": "even" if i % 2 == 0 else "odd"})
    for i in range(80)
]
CHATS = [
    [{"role": "user", "content": f"What of {i}?"}, {"role": "assistant", "content": "This: é→ " * 3}] for i in range(4)
]


def model_of(model_type, tokenizer):
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    shape |= {"num_key_value_heads": 2} | ({"head_dim": 8} if model_type.startswith("gemma") else {})
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](vocab_size=len(tokenizer), pad_token_id=0, max_position_embeddings=128, **shape)
    return LanguageModel(AutoModelForCausalLM.from_config(config).eval(), tokenizer, model_type)


def sae_at(model, site, d_sae=24, seed=0):
    from sae_lens import TopKSAE, TopKSAEConfig

    torch.manual_seed(seed)
    sae = TopKSAE(TopKSAEConfig(d_in=model.d_model, d_sae=d_sae, k=3, apply_b_dec_to_input=False))
    sae.W_enc.data.normal_()
    sae.W_dec.data.normal_()
    sae.cfg.metadata.hook_name = site.lens_name
    return sae.eval()


@pytest.mark.parametrize(
    ("model_type", "template"), [("llama", "llama3"), ("qwen2", "chatml"), ("gemma", "gemma"), ("gemma2", "gemma")]
)
def test_real_types_of_models(model_type, template, make_tokenizer, tmp_path):
    model = model_of(model_type, make_tokenizer(template))
    sae = sae_at(model, Site("resid_post", 1))
    found = interpret(model, sae, [3, 0, 3, 7], [*TEXTS, *CHATS], settings=InterpretSettings(4, 3, 2, 4, 5))
    assert [one.latent for one in found.latents] == [3, 0, 7] and found.site == Site("resid_post", 1)
    assert found.counts.special >= 4 and found.named_by == ""
    for one in found.latents:
        assert one.fires and len(one.top) == 4 and 1 <= len(one.quantiles) <= 3 and one.name is None
        assert [a.column for a in one.activity] == ["", "half", "half"] and one.activity[0].documents == 84
        assert len(one.weights.promoted) == len(one.weights.suppressed) == len(one.weights.nearest) == 5
        peaks = [c.peak for q in one.quantiles for c in q.contexts]
        assert peaks == sorted(peaks) and one.top[0].peak == one.activity[0].peak >= peaks[-1]
    # What is told of a token is what the SAE reads there.
    top = found.latents[0].top[0]
    rows = [d.document if isinstance(d, LabelledDocument) else d for d in (*TEXTS, *CHATS)]
    ids = (
        model.rows([rows[top.document]])[0][0]
        if top.document >= len(TEXTS)
        else model.tokenizer(rows[top.document])["input_ids"]
    )
    values = encode(sae, model.activations([ids], found.site, "all").values, [3]).detach()
    assert any(float(v) == pytest.approx(top.peak, abs=1e-4) for v in values)
    loaded = Interpretation.load(found.save(tmp_path / "i.json"))
    assert str(loaded) == str(found) and repr(loaded) == repr(found)


@pytest.fixture
def lettered(tiny, letters):
    """Latents that fire on letters, and never."""
    sae, site = letters(tiny, *[{letter: 1.0} for letter in "abcdefgh"], {"~": 1.0}, {"a": 1.0, "b": 2.0})

    def told(latents, namer=None, **shown):
        return interpret(
            tiny, sae, latents, TEXTS, site, namer, InterpretSettings(exclude=Exclusions(sinks=None), **shown)
        )

    return told


def test_names_are_asked_for_and_tested(lettered, server):
    def answer(body, n):
        asked = body["messages"][0]["content"]
        if "<description>" not in asked:
            marked = {part.split("»")[0] for part in asked.split("\n\n", 1)[1].split("«")[1:]}
            return server.chat(f"the letter {max(marked, key=len)[0]}")
        name = asked.split("<description>\n")[1].split("\n")[0]
        said = asked.split("<excerpt>\n")[1].split("\n</excerpt>")[0]
        inside = "".join(part.split("»")[0] for part in said.split("«")[1:]) if "«" in said else said
        return server.chat("YES" if name[-1] in inside else "NO")

    server.answer = answer
    found = lettered([2, 8], namer=Namer(Endpoint("m", server.url, progress=False), tests=6), side=9)
    named, never = found.latents
    assert named.name.name == "the letter c" and found.named_by == "m"
    assert [s.test for s in named.scores] == ["detection", "fuzzing"]
    for score in named.scores:
        assert score.own.balanced.rate == 1.0 and score.gain.rate > 0.3 and 2 not in score.control_latents
    assert never.name.failure == "it never fires on these documents" and never.scores == () and not never.fires
    said = str(found)
    assert "latent 8: never active on these" in said and "named 'the letter c'" in said and "detection 1.00" in said


def test_what_is_shown_depends_neither_on_names_nor_on_other_latents(lettered, server):
    server.answer = lambda body, n: server.chat("no")
    plain = lettered([4], side=2)
    named = lettered([1, 4], side=2, namer=Namer(Endpoint("m", server.url, progress=False), tests=1))
    assert named.latent(4).top == plain.latent(4).top and named.latent(4).activity == plain.latent(4).activity


def test_the_highest_kind_is_by_the_lower_end_of_its_interval(lettered):
    one = lettered([0]).latents[0]
    few = copy.copy(one.activity[1])
    object.__setattr__(few, "mean", 1e3)
    object.__setattr__(few, "standard_error", 1e4)
    changed = type(one)(one.latent, (one.activity[0], few, one.activity[2]), one.top, (), one.weights)
    assert changed.highest == one.activity[2]
    object.__setattr__(few, "documents", 1)
    object.__setattr__(few, "standard_error", math.nan)
    assert changed.highest == one.activity[2]
    assert lettered([8]).latents[0].highest is None


def test_controls_are_drawn_from_the_other_latents():
    drawn = _drawn(1000, [3, 5], seed=0)
    assert len(drawn) == len(set(drawn)) == POOL and not {3, 5} & set(drawn) and drawn != _drawn(1000, [3, 5], seed=1)
    assert sorted(_drawn(4, [1], seed=0)) == [0, 2, 3] and _drawn(1, [0], seed=0) == []


def test_what_goes_wrong_is_one_sentence(lettered, tiny, make_model, tmp_path):
    with pytest.raises(EmlabError, match="no latent 10: choose one of these"):
        lettered([0, 10])
    with pytest.raises(EmlabError, match="at least one latent"):
        lettered([])
    other = make_model(hidden_size=16)
    with pytest.raises(EmlabError, match="reads 16 dimensions and tiny has 32"):
        interpret(tiny, sae_at(other, Site("resid_post", 1)), [0], TEXTS)
    with pytest.raises(EmlabError, match="no documents"):
        interpret(tiny, sae_at(tiny, Site("resid_post", 1)), [0], [])
    with pytest.raises(EmlabError, match=r"latent 3 is not among those interpreted \(0\)"):
        lettered([0]).latent(3)
    for text in ("[]", '{"latents": [{}]}', '{"latents": 1}'):
        (tmp_path / "i.json").write_text(text)
        with pytest.raises(EmlabError, match="holds no Interpretation"):
            Interpretation.load(tmp_path / "i.json")
