"""Progress on disk: an optimiser goes on bit for bit, and what is another training's or broken is refused."""

import json

import pytest
import torch

from emlab.errors import EmlabError
from emlab.training.progress import Progress, optimizer_tensors, put_optimizer
from emlab.training.randomness import generators_kept, seed_generators, seed_of_step


def steps(weight, optimizer, n, first):
    for i in range(first, first + n):
        weight.grad = torch.full_like(weight, 0.1 * i) * weight.detach()
        optimizer.step()


def test_an_optimiser_goes_on_bit_for_bit(tmp_path):
    def fresh():
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 7))
        return weight, torch.optim.AdamW([weight], lr=0.05, weight_decay=0.1)

    whole, optimizer = fresh()
    steps(whole, optimizer, 6, 1)
    half, optimizer = fresh()
    steps(half, optimizer, 3, 1)
    about = {"points": [1, None], "name": "x"}
    kept = Progress(3, {"w": half.detach()}, optimizer_tensors(optimizer), ({"w": torch.ones(2)},), about)
    kept.save(tmp_path, "key")
    kept.save(tmp_path, "key")  # takes the place of the first
    found = Progress.load(tmp_path, "key")
    assert (found.step, found.about) == (3, about)
    assert torch.equal(found.past[0]["w"], torch.ones(2)) and len(found.past) == 1
    again, optimizer = fresh()
    with torch.no_grad():
        again.copy_(found.weights["w"])
    put_optimizer(optimizer, found.optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.05
    steps(again, optimizer, 3, 4)
    assert torch.equal(again, whole)


def test_what_is_not_gone_on_with(tmp_path):
    assert Progress.load(tmp_path, "key") is None
    Progress(1, {"w": torch.ones(1)}, {}).save(tmp_path, "key")
    with pytest.raises(EmlabError, match="holds the training of another model"):
        Progress.load(tmp_path, "other")
    for file, content in (("progress.json", "{"), ("progress.json", json.dumps({"step": 1}))):
        (tmp_path / "state" / file).write_text(content)
        with pytest.raises(EmlabError, match="cannot be gone on with"):
            Progress.load(tmp_path, "key")
    (tmp_path / "state" / "weights.safetensors").unlink()
    with pytest.raises(EmlabError, match="delete it to begin anew"):
        Progress.load(tmp_path, "key")


def test_the_generators_are_left_as_they_were():
    import random

    import numpy as np

    def draws():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_generators(7)
    expected = draws()
    seed_generators(7)
    with generators_kept():
        seed_generators(seed_of_step(0, 1))
        first = draws()
        seed_generators(seed_of_step(0, 1))
        assert draws() == first != expected
    assert draws() == expected
    assert len({seed_of_step(s, i) for s in range(3) for i in range(3)}) == 9
