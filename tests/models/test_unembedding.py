"""The direct effect on the logits is exactly what norm and unembedding do to a vector, but for its size."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from emlab.errors import EmlabError
from emlab.models import LanguageModel, direct_logits


def tiny_of(model_type, tokenizer, **more):
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    shape |= {} if model_type == "gpt_neox" else {"num_key_value_heads": 2}
    shape |= {"head_dim": 8} if model_type.startswith("gemma") else {}
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4} if model_type == "gpt2" else shape
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](vocab_size=len(tokenizer), pad_token_id=0, **shape, **more)
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, value in model.named_parameters():
        if "norm" in name or ".ln" in name:  # gains and biases that are not all alike
            torch.nn.init.normal_(value, mean=1.0, std=0.5)
    return LanguageModel(model, tokenizer, model_type)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gemma", "gemma2", "gpt2", "gpt_neox"])
@torch.no_grad()
def test_it_is_what_the_last_layers_do_to_the_vector_but_for_its_size(model_type, make_tokenizer):
    lm = tiny_of(model_type, make_tokenizer(), **({"final_logit_softcapping": None} if model_type == "gemma2" else {}))
    decoder, out = lm.model.get_decoder(), lm.model.get_output_embeddings()
    norm = getattr(decoder, {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}.get(model_type, "norm"))
    vectors = 100 * torch.randn(3, 32)  # so large that epsilon does not matter
    if model_type.startswith("gpt"):
        sizes, bias = vectors.std(dim=-1, unbiased=False, keepdim=True), out(norm.bias)
    else:
        sizes, bias = vectors.square().mean(dim=-1, keepdim=True).sqrt(), 0.0
    whole = (out(norm(vectors)) - bias) * sizes
    whole = whole - whole.mean(dim=-1, keepdim=True)
    found = direct_logits(lm, vectors)
    assert found.shape == (3, len(lm.tokenizer)) and torch.allclose(found, whole, atol=1e-3, rtol=1e-3)
    assert torch.allclose(direct_logits(lm, 2 * vectors), 2 * found, rtol=1e-4)


@torch.no_grad()
def test_by_hand(tiny, make_model):
    model = make_model()
    model.model.model.norm.weight.copy_(torch.arange(32.0))
    model.model.lm_head.weight.zero_()
    model.model.lm_head.weight[5, 3], model.model.lm_head.weight[6, 3] = 1.0, -2.0
    vector = torch.zeros(1, 32)
    vector[0, 3] = 2.0
    found = direct_logits(model, vector)[0]
    mean = (6.0 - 12.0) / len(found)
    assert found[5] == pytest.approx(6.0 - mean) and found[6] == pytest.approx(-12.0 - mean)
    assert found[7] == pytest.approx(-mean)


def test_rows_beyond_the_last_token_are_left_out(make_model):
    model = make_model()
    model.model.resize_token_embeddings(300)
    assert model.model.lm_head.weight.shape[0] == 300 > len(model.tokenizer)
    assert direct_logits(model, torch.ones(1, 32)).shape == (1, len(model.tokenizer))


def test_another_width_and_an_unknown_norm_are_refused(tiny, make_model):
    with pytest.raises(EmlabError, match="width 16 has no direct effect on the logits of tiny, which reads 32"):
        direct_logits(tiny, torch.ones(1, 16))
    model = make_model()
    del model.model.model.norm
    with pytest.raises(EmlabError, match="tiny has no final norm by a name that emlab knows"):
        direct_logits(model, torch.ones(1, 32))
