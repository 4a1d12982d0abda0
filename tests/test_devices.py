"""What runs on every device that torch has here: the same numbers as on the CPU, up to rounding.

On a machine with a GPU these tests run on it too; `benchmarks/gpu.py` runs them there.
"""

import pytest
import torch

from emlab.data import Dataset
from emlab.interventions import Steer, random_directions
from emlab.models import LanguageModel
from emlab.saes import sparse_products, train_sae
from emlab.sites import Site
from emlab.training import Recipe, finetune

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SITE = Site("resid_post", 1)
ASKED = ["How are you?", "Hm", "A longer question, with a comma"]
CHATS = Dataset.of(
    [[{"role": "user", "content": f"Say {i}"}, {"role": "assistant", "content": f"{i} it is"}] for i in range(8)]
)


@pytest.fixture(scope="module", params=DEVICES)
def there(request, make_model, tmp_path_factory):
    """The model on a device, loaded as a user loads it."""
    folder = make_model().save(tmp_path_factory.mktemp("model") / "tiny")
    return LanguageModel.load(folder, device=request.param, dtype="float32")


@pytest.fixture(scope="module")
def here(make_model):
    return make_model()


def test_activations_and_edited_activations(there, here):
    edit = Steer(SITE, random_directions(1, 32, SITE, 0)[0], 2.0, positions="all")
    for edits in ([], [edit]):
        ours, theirs = (
            model.activations(ASKED, Site("resid_post", 2), "all", edits=edits).values.cpu() for model in (here, there)
        )
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_greedy_answers_with_and_without_an_edit(there, here):
    edit = Steer(SITE, random_directions(1, 32, SITE, 0)[0], 2.0, positions="generated")
    for edits in ([], [edit]):
        ours, theirs = (model.generate(ASKED, 8, temperature=0.0, edits=edits) for model in (here, there))
        assert ours == theirs


def test_a_fine_tune_and_an_sae(there, here):
    recipe = Recipe(method="lora", rank=2, learning_rate=1e-2, batch_size=4, steps=4)
    tuned = [finetune(model, CHATS, recipe, seed=0, progress=False) for model in (here, there)]
    assert tuned[1].losses == pytest.approx(tuned[0].losses, rel=1e-3)
    read = here.activations(ASKED, SITE, "all").values
    saes = [train_sae(read.to(model.device), SITE, d_sae=16, k=4, passes=20.0) for model in (here, there)]
    rebuilt = [sae.decode(sae.encode(read.to(sae.W_dec.device))).cpu() for sae in saes]
    assert torch.allclose(*rebuilt, atol=1e-2)


def test_the_products_of_a_topk_code(there):
    generator = torch.Generator().manual_seed(0)
    left, rows = torch.randn(12, 40, generator=generator), torch.randn(30, 40, generator=generator)
    index, value = torch.randint(30, (12, 5), generator=generator), torch.randn(60, generator=generator)
    offsets = torch.arange(0, 61, 5)
    device = there.device
    got = sparse_products.gather_sum(
        rows.to(device),
        index.flatten().to(device),
        value.to(device),
        offsets.to(device),
        torch.empty(12, 40).to(device),
    )
    by_hand = (value.view(12, 5, 1) * rows[index]).sum(1)
    assert torch.allclose(got.cpu(), by_hand, atol=1e-4)
    dots = sparse_products.gather_dot(left.to(device), rows.to(device), index.to(device))
    assert torch.allclose(dots.cpu(), (left[:, None] * rows[index]).sum(-1), atol=1e-4)
