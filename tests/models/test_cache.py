"""The cache in place against the cache of transformers."""

import pytest
import torch

from emlab.models.cache import Room, in_place_cache, picked


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


def test_copies_of_rows_leave_the_cache_as_it_is(make_model):
    model = make_model().model
    ids = torch.randint(3, 250, (4, 5), generator=torch.Generator().manual_seed(0))
    cache, room = in_place_cache(model.config, 7), Room()
    with torch.no_grad():
        model(ids, past_key_values=cache, use_cache=True)
        before = [layer.keys.clone() for layer in cache.layers]
        for pick in (torch.tensor([2, 0, 2]), torch.tensor([3]), torch.tensor([0, 1, 2, 3, 3])):
            copy = picked(cache, pick, 1, room)
            assert copy.layers[0] is cache.layers[0]
            assert torch.equal(copy.layers[1].keys, cache.layers[1].keys[pick])
            assert torch.equal(copy.layers[1].values, cache.layers[1].values[pick])
            model(ids[pick, :2], past_key_values=picked(cache, pick, 0, room), use_cache=True)
    assert cache.get_seq_length() == 5
    assert all(torch.equal(layer.keys, was) for layer, was in zip(cache.layers, before, strict=True))


def test_room_is_used_again():
    room = Room()
    first = room.take("a", (4, 3), torch.zeros(1))
    assert room.take("a", (2, 5), torch.zeros(1)).data_ptr() == first.data_ptr()
    assert room.take("b", (4, 3), torch.zeros(1)).data_ptr() != first.data_ptr()
    assert room.take("a", (5, 3), torch.zeros(1)).shape == (5, 3)
