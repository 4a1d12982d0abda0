"""Hooks: every family's module names, tensors and tuples, removal after errors."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig

from emlab.errors import EmlabError
from emlab.interventions import Ablate, Steer, Tokens, random_directions
from emlab.models.backends.hooks import caught, edited, on_site
from emlab.sites import FAMILIES, Site

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
TOKENS = Tokens(IDS, torch.ones_like(IDS).bool(), torch.zeros_like(IDS).bool())
SITE = Site("resid_post", 1)
STEER = Steer(SITE, random_directions(1, 32, SITE, 0)[0], 3.0, positions="all")


def no_ends():
    return torch.tensor([0])


def read(model, site):
    with torch.no_grad(), caught(model, Site.parse(site)) as seen:
        model(IDS)
    return seen[0]


MIDDLE = ("resid_mid", "attn_out")


def logits(model, *edits):
    with torch.no_grad(), edited(model, edits, no_ends) as editor:
        editor.see(TOKENS)
        return model(IDS).logits


def tiny_of(model_type, parallel=False):
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32}
    experts = {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
    config = CONFIG_MAPPING[model_type]
    if model_type == "gpt2":
        made = config(n_embd=16, n_layer=2, n_head=2, vocab_size=32)
    elif model_type == "gemma3":
        text = {**shape, "intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8}
        vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        made = config(text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14})
    else:
        extra = {} if model_type == "gpt_neox" else {"num_key_value_heads": 1}
        if model_type.startswith(("gemma", "qwen3", "gpt_oss")):
            extra["head_dim"] = 8
        if model_type in ("qwen3_moe", "mixtral", "gpt_oss"):
            extra |= experts
        if model_type == "gpt_neox":
            extra["use_parallel_residual"] = parallel
        made = config(intermediate_size=24, pad_token_id=0, **shape, **extra)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(made).eval()


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_the_streams_add_up_in_every_family(model_type):
    model = tiny_of(model_type)
    assert model.config.model_type == model_type
    before, after = read(model, "resid_pre.1"), read(model, "resid_post.1")
    added = read(model, "attn_out.1") + read(model, "mlp_out.1")
    assert before.shape == (2, 4, 16)
    assert torch.allclose(before + added, after, atol=1e-5)
    assert torch.equal(read(model, "resid_post.0"), before)
    assert not torch.allclose(before, after, atol=1e-3)
    assert torch.allclose(before + read(model, "attn_out.1"), read(model, "resid_mid.1"), atol=1e-5)


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_what_is_pushed_in_between_goes_both_ways(model_type):
    """A push at resid_mid is one at attn_out: the MLP reads it, and the skip connection carries it on."""
    model = tiny_of(model_type)
    push = torch.randn(16, generator=torch.Generator().manual_seed(1))
    at_middle, at_attention = (logits(model, Steer(Site(s, 1), push, 2.0, positions="all")) for s in MIDDLE)
    assert torch.allclose(at_middle, at_attention, atol=1e-5)
    assert not torch.allclose(at_middle, logits(model), atol=1e-3)


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_the_heads_are_what_the_projection_reads(model_type):
    model = tiny_of(model_type)
    z, one = read(model, "z.1"), read(model, "z.1.1")
    half = z.shape[-1] // 2
    assert torch.equal(z[..., half:], one)
    projection = model.get_submodule(Site("z", 1).hook(model_type).module)
    if not FAMILIES[model_type].post_norm:
        with torch.no_grad():
            assert torch.allclose(projection(z), read(model, "attn_out.1"), atol=1e-6)
    push = torch.randn(half, generator=torch.Generator().manual_seed(1))
    edit = Steer(Site("z", 1, 1), push, 2.0, positions="all")
    wide = Steer(Site("z", 1), torch.cat([torch.zeros(half), push]), 2.0, positions="all")
    assert torch.allclose(logits(model, edit), logits(model, wide), atol=1e-6)
    assert not torch.allclose(logits(model, edit), logits(model), atol=1e-5)


def test_blocks_in_parallel_have_no_stream_between():
    model = tiny_of("gpt_neox", parallel=True)
    edit = Steer(Site("resid_mid", 1), torch.ones(16))
    with pytest.raises(EmlabError, match="in parallel"), edited(model, [edit], no_ends):
        raise AssertionError("never reached")
    assert count_hooks(model) == 0


class Layer(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, hidden_states):
        return self.answer(hidden_states)


class Decoder(nn.Module):
    """One block that answers as older or newer versions of transformers do."""

    def __init__(self, answer):
        super().__init__()
        self.config = LlamaConfig(num_hidden_layers=1)
        self.model = nn.Module()
        self.model.layers = nn.ModuleList([Layer(answer)])

    def forward(self, h, **as_keywords):
        return self.model.layers[0](**as_keywords) if as_keywords else self.model.layers[0](h)


@pytest.mark.parametrize("answer", [lambda h: h, lambda h: (h, "weights"), lambda h: (h,)])
def test_tensors_and_tuples(answer):
    h = torch.randn(2, 3, 4)
    decoder = Decoder(answer)
    with edited(decoder, [], no_ends):
        pass
    handle = on_site(decoder, Site("resid_post", 0), lambda x: x + 1)
    out = decoder(h)
    handle.remove()
    if isinstance(out, tuple):
        assert out[1:] == answer(h)[1:]
        out = out[0]
    assert out.shape == h.shape
    assert torch.equal(out, h + 1)


def test_the_input_is_edited_passed_by_place_or_by_name():
    h = torch.randn(2, 3, 4)
    decoder = Decoder(lambda x: x)
    handle = on_site(decoder, Site("resid_pre", 0), lambda x: x * 2)
    assert torch.equal(decoder(h), h * 2)
    assert torch.equal(decoder(None, hidden_states=h), h * 2)
    handle.remove()
    assert torch.equal(decoder(h), h)


def test_what_cannot_be_edited_is_refused():
    with pytest.raises(EmlabError, match="returns a dict"):
        handle = on_site(decoder := Decoder(lambda h: {"h": h}), Site("resid_post", 0), lambda x: x)
        decoder(torch.zeros(1, 1, 4))
    handle = on_site(decoder, Site("resid_pre", 0), lambda x: x)
    handle.remove()


def count_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_afterwards_the_model_is_as_before(tiny):
    model, others = tiny.model, count_hooks(tiny.model)
    with torch.no_grad():
        before = model(IDS).logits
        with edited(model, [STEER, Ablate(SITE, STEER.direction, "all")], no_ends) as editor:
            editor.see(TOKENS)
            assert not torch.allclose(model(IDS).logits, before, atol=1e-2)
            assert count_hooks(model) == others + 2 + 1  # one tells of an overflow
        assert torch.equal(model(IDS).logits, before)
        with pytest.raises(ZeroDivisionError), edited(model, [STEER], no_ends) as editor:
            editor.see(TOKENS)
            model(IDS)
            raise ZeroDivisionError
        too_high = Steer(Site("resid_post", 9), STEER.direction)
        with pytest.raises(EmlabError, match="its 3 blocks"), edited(model, [STEER, too_high], no_ends):
            raise AssertionError("never reached")
        with caught(model, SITE):
            model(IDS)
        with pytest.raises(EmlabError, match="width 5"), edited(model, [Steer(SITE, torch.ones(5))], no_ends):
            raise AssertionError("never reached")
        assert count_hooks(model) == others
        assert torch.equal(model(IDS).logits, before)


def test_edits_at_one_site_act_in_the_order_given(tiny):
    ablate = Ablate(SITE, STEER.direction, "all")

    def along(*edits):
        with torch.no_grad(), edited(tiny.model, edits, no_ends) as editor:
            editor.see(TOKENS)
            with caught(tiny.model, SITE) as seen:
                tiny.model(IDS)
        return seen[0] @ STEER.direction.vector

    assert along(STEER, ablate).abs().max() < 1e-5
    assert torch.allclose(along(ablate, STEER), torch.full((2, 4), 3.0), atol=1e-5)


def test_a_forward_pass_of_other_tokens_is_refused(tiny):
    with edited(tiny.model, [STEER], no_ends) as editor:
        with pytest.raises(EmlabError, match="do not know"):
            tiny.model(IDS)
        editor.see(TOKENS)
        with pytest.raises(EmlabError, match="before every forward pass"):
            tiny.model(IDS[:, :2])


def test_a_catch_stops_the_pass_at_its_site(tiny):
    reached = []
    handle = on_site(tiny.model, Site("resid_post", 2), lambda h: reached.append(h))
    with torch.no_grad():
        with caught(tiny.model, Site("resid_post", 0)) as seen:
            tiny.model(IDS)
            raise AssertionError("never reached")
        assert len(seen) == 1 and not reached
        with caught(tiny.model, Site("resid_post", 0), stop=False):
            tiny.model(IDS)
    handle.remove()
    assert len(reached) == 1
