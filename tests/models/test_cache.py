"""The cache in place against the cache of transformers."""

import pytest
import torch

from emlab.models.cache import in_place_cache


@pytest.mark.parametrize("sliding", [False, True])
def test_it_computes_what_the_other_cache_does(make_model, sliding):
    from transformers import DynamicCache, MistralConfig, MistralForCausalLM

    model = make_model().model
    if sliding:
        torch.manual_seed(0)
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = MistralConfig(**shape, num_key_value_heads=2, vocab_size=300, sliding_window=4, pad_token_id=0)
        model = MistralForCausalLM(config).eval()
    ids = torch.randint(3, 250, (4, 6), generator=torch.Generator().manual_seed(0))
    pick = torch.tensor([2, 0, 2])
    ours, theirs = in_place_cache(model.config, 9), DynamicCache(config=model.config)
    with torch.no_grad():
        for cache in (ours, theirs):
            model(ids[:, :5], past_key_values=cache, use_cache=True)
            cache.batch_select_indices(pick)
        for step in range(3):
            now = ids[pick, step : step + 1]
            a, b = (model(now, past_key_values=cache, use_cache=True).logits for cache in (ours, theirs))
            assert torch.equal(a, b)
            assert ours.get_seq_length() == theirs.get_seq_length() == 6 + step
