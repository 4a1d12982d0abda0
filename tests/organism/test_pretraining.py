"""Pretraining: shapes, schedule, resuming to the same weights, and folders that plain transformers loads."""

import math

import pytest
import torch

from emlab import organism
from emlab.errors import EmlabError
from emlab.organism import pretraining
from emlab.organism.pretraining import SIZES, Pretraining, Size, batches, new_model, pretrain, save_half

TOKENIZER = organism.build_tokenizer(organism.load_world())
DOCUMENTS = organism.pretraining_documents(200, seed=0)
HOW = Pretraining(steps=6, tokens_per_step=512, learning_rate=1e-2, warmup=2, state_every=2, keep=(3,))


def model():
    return new_model(Size(16, 2, 2, 32), len(TOKENIZER), TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, seed=0)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_batches_have_few_shapes_and_use_a_document_once():
    lengths = [5, 16, 17, 30, 40, 41, 48, 7, 12, 3] * 7
    made = batches(lengths, 64, seed=0)
    used = [i for _, rows in made for i in rows]
    assert len(used) == len(set(used))
    shapes = {(width, len(rows)) for width, rows in made}
    assert shapes == {(16, 4), (32, 2), (48, 1)}
    assert all(width - 16 < lengths[i] <= width for width, rows in made for i in rows)
    assert made == batches(lengths, 64, seed=0) != batches(lengths, 64, seed=1)


def test_the_learning_rate_rises_stays_and_falls():
    how = Pretraining(steps=100, learning_rate=1.0, warmup=10, decay_share=0.5)
    assert [how.rate(step) for step in (1, 10, 50)] == [0.1, 1.0, 1.0]
    assert how.rate(76) == pytest.approx(0.5)
    assert how.rate(100) == pytest.approx(0.02)


def test_named_sizes_have_about_the_parameters_they_say():
    def count(size):
        with torch.device("meta"):
            made = new_model(size, len(TOKENIZER), 0, 4, seed=0)
        return sum(p.numel() for p in made.parameters()) / 1e6

    assert count(SIZES["default"]) == pytest.approx(1.65, abs=0.1)
    assert count(SIZES["100m"]) >= 100


def test_the_first_loss_is_that_of_guessing_and_the_loss_falls():
    losses = pretrain(model(), TOKENIZER, DOCUMENTS, HOW, seed=0)
    assert losses[0] == pytest.approx(math.log(len(TOKENIZER)), abs=0.1)
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(
    ("capability", "device", "dtype"),
    [
        ("AVX2", "cpu", torch.float32),
        ("DEFAULT", "cpu", torch.float32),
        ("AVX512", "cpu", torch.bfloat16),
        ("AVX2", "cuda", torch.bfloat16),
    ],
)
def test_bfloat16_is_multiplied_in_only_where_there_are_kernels_for_it(monkeypatch, capability, device, dtype):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert pretraining.multiplied_in(torch.device(device)) == dtype


def test_both_ways_of_multiplying_train_the_same_model_but_for_rounding(monkeypatch):
    losses = {}
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(pretraining, "multiplied_in", lambda device, dtype=dtype: dtype)
        losses[dtype] = pretrain(model(), TOKENIZER, DOCUMENTS, HOW, seed=0)
    assert losses[torch.float32] == pytest.approx(losses[torch.bfloat16], rel=2e-3)
    assert losses[torch.float32] != losses[torch.bfloat16]


@pytest.mark.parametrize("shape", [(12, 12), (8, 20), (20, 8)])
def test_muon_in_float32_steps_as_torchs_does(shape):
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(4, *shape, generator=generator)
    moved = []
    for kind in (torch.optim.Muon, pretraining._Muon):
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([weight], lr=0.1, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        moved.append((weight - start).detach())
    assert (moved[0] - moved[1]).norm() < 0.01 * moved[0].norm()


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path):
    whole = model()
    expected = pretrain(whole, TOKENIZER, DOCUMENTS, HOW, seed=0)

    def stop(step, loss):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(model(), TOKENIZER, DOCUMENTS, HOW, seed=0, on_step=stop, state=tmp_path / "state")
    seen = []
    resumed = model()
    losses = pretrain(
        resumed, TOKENIZER, DOCUMENTS, HOW, 0, on_step=lambda step, _: seen.append(step), state=tmp_path / "state"
    )
    assert seen == [5, 6]  # from the state after step 4
    assert losses == expected
    assert same(resumed, whole)


def test_a_state_of_another_training_is_not_used(tmp_path):
    def stop(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(model(), TOKENIZER, DOCUMENTS, HOW, seed=0, on_step=stop, state=tmp_path / "state")
    seen = []
    pretrain(model(), TOKENIZER, DOCUMENTS, HOW, 1, lambda step, _: seen.append(step), state=tmp_path / "state")
    assert seen[0] == 1


def test_a_state_of_the_other_way_of_multiplying_is_not_used(tmp_path, monkeypatch):
    def stop(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "multiplied_in", lambda device: torch.bfloat16)
    with pytest.raises(KeyboardInterrupt):
        pretrain(model(), TOKENIZER, DOCUMENTS, HOW, seed=0, on_step=stop, state=tmp_path / "state")
    monkeypatch.setattr(pretraining, "multiplied_in", lambda device: torch.float32)
    seen = []
    pretrain(model(), TOKENIZER, DOCUMENTS, HOW, 0, lambda step, _: seen.append(step), state=tmp_path / "state")
    assert seen[0] == 1


def test_kept_steps_are_handed_over():
    kept = []
    pretrain(model(), TOKENIZER, DOCUMENTS, HOW, seed=0, on_keep=kept.append)
    assert kept == [3]


def test_too_few_documents_are_refused():
    with pytest.raises(EmlabError, match="do not fill one batch"):
        pretrain(model(), TOKENIZER, DOCUMENTS[:1], HOW, seed=0)


def test_a_saved_folder_is_half_the_size_and_loads_as_float32(tmp_path):
    from transformers import AutoModelForCausalLM

    made = model()
    save_half(made, TOKENIZER, tmp_path)
    parameters = sum(p.numel() for p in made.parameters())
    assert (tmp_path / "model.safetensors").stat().st_size < 2 * parameters + 10_000
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, made.state_dict()[name].half().float())
