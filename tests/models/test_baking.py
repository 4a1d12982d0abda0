"""Baked edits compute what the hooks compute, without hooks; what weights cannot do is refused with the reason."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from emlab.errors import EmlabError
from emlab.interventions import Ablate, Clamp, Steer, random_directions
from emlab.models import LanguageModel, ablate_everywhere, bake
from emlab.sites import Site

FAMILIES = ["gpt2", "gpt_neox", "llama", "qwen2", "qwen3", "gemma", "mistral", "phi3", "olmo"]
PROMPTS = ["Hi", "What should I do with my money?"]
DIRECTIONS = random_directions(2, 32, Site("resid_post", 0), seed=3)


@pytest.fixture(scope="module")
def family(make_tokenizer):
    """family(model_type, **config): a random model of that type, two blocks of width 32."""

    def make(model_type, **more):
        tokenizer = make_tokenizer("chatml")
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
        if model_type == "gpt2":
            shape = {"n_embd": 32, "n_layer": 2, "n_head": 4}
        elif model_type != "gpt_neox":
            shape |= {"num_key_value_heads": 2}
        if model_type.startswith(("gemma", "qwen3")):
            shape |= {"head_dim": 8}
        if model_type == "qwen3_moe":
            shape |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        torch.manual_seed(0)
        config = CONFIG_MAPPING[model_type](vocab_size=len(tokenizer), pad_token_id=0, **shape, **more)
        model = AutoModelForCausalLM.from_config(config).eval()
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(value, std=0.1)
        return LanguageModel(model, tokenizer, model_type)

    return make


def agree(baked, lm, edits):
    pairs = zip(baked.logits(PROMPTS), lm.logits(PROMPTS, edits=edits), strict=True)
    return all(torch.allclose(a, b, atol=1e-4) for a, b in pairs)


@pytest.mark.parametrize(
    "model_type", ["gpt2", "gpt_neox", "llama", "qwen2", "qwen3", "gemma", "mistral", "phi3", "olmo"]
)
def test_a_direction_is_ablated_from_every_writer(family, model_type):
    lm = family(model_type)
    before = lm.logits(PROMPTS)
    edits = ablate_everywhere(DIRECTIONS, lm)
    baked = bake(lm, edits)
    assert agree(baked, lm, edits) and not agree(baked, lm, [])
    for site in ("resid_pre.1", "resid_post.1"):
        held = baked.activations(PROMPTS, site, "all").values @ torch.stack([d.vector for d in DIRECTIONS]).T
        assert held.abs().max() < 1e-4 * baked.activations(PROMPTS, site, "all").values.norm(dim=-1).max()
    assert all(torch.equal(a, b) for a, b in zip(lm.logits(PROMPTS), before, strict=True)), "the model itself stays"


@pytest.mark.parametrize(("model_type", "more"), [("gpt2", {}), ("gpt_neox", {}), ("llama", {"mlp_bias": True})])
@pytest.mark.parametrize("site", ["resid_post.0", "resid_pre.1", "mlp_out.1"])
def test_steering_is_a_bias(family, model_type, more, site):
    lm = family(model_type, **more)
    edits = [
        Steer(Site.parse(site), d, strength, positions="all")
        for d, strength in zip(DIRECTIONS, (3.0, -1.0), strict=True)
    ]
    baked = bake(lm, edits)
    assert agree(baked, lm, edits) and not agree(baked, lm, edits[:1])


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "llama", "olmo2"])
def test_what_the_projection_of_the_heads_reads_is_edited_in_its_weights(family, model_type):
    """Also where a norm comes after it; the later of two edits takes what the earlier left."""
    lm = family(model_type)
    gen = torch.Generator().manual_seed(1)
    one, whole = Site("z", 0, 2), Site("z", 1)
    edits = [
        Ablate(one, torch.randn(2, 8, generator=gen), "all"),
        Ablate(whole, torch.randn(1, 32, generator=gen), "all"),
    ]
    if model_type.startswith("gpt"):
        push = Steer(whole, torch.randn(32, generator=gen), 4.0, positions="all")
        edits = [
            push,
            *edits,
            Steer(one, torch.randn(8, generator=gen), 3.0, positions="all"),
            Ablate(one, torch.ones(8), "all"),
        ]
    else:
        with pytest.raises(EmlabError, match="has no bias for the push"):
            bake(lm, Steer(whole, torch.ones(32), positions="all"))
    baked = bake(lm, edits)
    assert agree(baked, lm, edits)
    assert not agree(baked, lm, []) and not agree(baked, lm, edits[:1])


def test_edits_are_baked_in_the_order_in_which_a_pass_reaches_them(family):
    """The push at resid_mid comes after the ablation of attn_out, whichever was named first, and is not ablated."""
    lm = family("gpt2")
    edits = [
        Steer(Site("resid_mid", 1), DIRECTIONS[0], 3.0, positions="all"),
        Ablate(Site("attn_out", 1), DIRECTIONS, "all"),
    ]
    for named in (edits, edits[::-1]):
        assert agree(bake(lm, named), lm, named) and not agree(bake(lm, named), lm, edits[1:])


def test_the_baked_model_needs_no_emlab(family, tmp_path):
    lm = family("gpt2", tie_word_embeddings=True)
    edits = [*ablate_everywhere(DIRECTIONS[0], lm), Steer(Site("attn_out", 1), DIRECTIONS[1], 2.0, positions="all")]
    bake(lm, edits, name="baked").save(tmp_path / "baked")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "baked").eval()
    ids = torch.tensor([lm.prompt_ids(PROMPTS[1])])
    with torch.no_grad():
        logits = loaded(ids).logits[0]
    assert torch.allclose(logits, lm.logits(PROMPTS[1:], edits=edits)[0], atol=1e-4)
    assert sum(len(m._forward_hooks) for m in loaded.modules()) == 0


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3_text", "olmo2"])
def test_a_norm_after_the_writer_is_a_reason_to_refuse(family, model_type):
    lm = family(model_type)
    for edit in (
        Ablate(Site("mlp_out", 0), DIRECTIONS, "all"),
        Steer(Site("resid_post", 0), DIRECTIONS[0], positions="all"),
    ):
        with pytest.raises(EmlabError, match="a norm follows"):
            bake(lm, edit)


def test_what_weights_cannot_do_is_refused(family):
    lm, site = family("qwen2"), Site("resid_post", 0)
    with pytest.raises(EmlabError, match="no bias for"):
        bake(lm, Steer(site, DIRECTIONS[0], positions="all"))
    with pytest.raises(EmlabError, match="some positions only"):
        bake(lm, Steer(site, DIRECTIONS[0], positions="header"))
    with pytest.raises(EmlabError, match="row to row"):
        bake(lm, Steer(site, torch.stack([d.vector for d in DIRECTIONS]), positions="all"))
    with pytest.raises(EmlabError, match="bake ablate_everywhere"):
        bake(lm, Ablate(site, DIRECTIONS, "all"))
    with pytest.raises(EmlabError, match="resid_post.0 instead"):
        bake(lm, Steer(Site("resid_pre", 0), DIRECTIONS[0], positions="all"))
    with pytest.raises(EmlabError, match="A Clamp follows what the model reads"):
        bake(lm, Clamp(site, lambda h: h[..., :1], torch.zeros(1, 32), torch.zeros(1), "all"))
    with pytest.raises(EmlabError, match="mixture of experts"):
        bake(family("qwen3_moe"), Ablate(Site("mlp_out", 0), DIRECTIONS, "all"))
