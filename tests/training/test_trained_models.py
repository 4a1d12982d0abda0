"""Models kept as adapters come back bit for bit, and only on their own base."""

import json
import weakref

import pytest
import torch

import emlab
from emlab.errors import EmlabError
from emlab.models import LanguageModel
from emlab.training import FineTuned, Recipe
from emlab.training.trained_models import size_on_disk

CHATS = [
    [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": f"Answer {i}."}] for i in range(4)
]
RECIPE = Recipe(rank=2, steps=4, batch_size=2, learning_rate=1e-2, checkpoint_every=2)


def weights(model):
    return {name: (value.dtype, value) for name, value in model.model.state_dict().items()}


def same(one, other):
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(a[k][0] == b[k][0] and torch.equal(a[k][1], b[k][1]) for k in a)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def base(request, make_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    made = make_model(seed=1)
    made.model.to(getattr(torch, request.param))
    made.save(folder)
    return LanguageModel.load(folder, device="cpu")


@pytest.fixture(scope="module")
def tuned(base):
    return emlab.finetune(base, CHATS, RECIPE, 0, progress=False, name="tuned")


def test_merged_again_they_are_the_trained_weights_bit_for_bit(base, tuned, tmp_path):
    tuned.save(tmp_path / "kept", base)
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    again = FineTuned.load(tmp_path / "kept", base)
    assert torch.equal(torch.rand(3), drawn)  # peft's own random adapter is drawn aside
    assert same(again.model, tuned.model)
    assert again.model.name == "tuned"
    assert [(step, model.name) for step, model in again.checkpoints] == [(2, "tuned, step 2"), (4, "tuned, step 4")]
    assert all(same(a, b) for (_, a), (_, b) in zip(again.checkpoints, tuned.checkpoints, strict=True))
    assert not same(again.checkpoints[0][1], again.model)


def test_the_folder_loads_by_itself_while_its_base_lies_there(base, tuned, tmp_path):
    tuned.save(tmp_path / "kept", base)
    alone = LanguageModel.load(tmp_path / "kept")
    assert same(alone, tuned.model)
    assert alone.name == "kept"
    assert same(FineTuned.load(tmp_path / "kept").checkpoints[0][1], tuned.checkpoints[0][1])
    assert same(LanguageModel.load(tmp_path / "kept" / "checkpoints" / "step_00002"), tuned.checkpoints[0][1])
    assert LanguageModel.load(tmp_path / "kept", dtype="float16").model.dtype == torch.float16
    # What is trained on from there names it, not its base.
    further = emlab.finetune(alone, CHATS, RECIPE, 1, progress=False)
    further.save(tmp_path / "further", alone)
    assert same(LanguageModel.load(tmp_path / "further"), further.model)


def test_no_whole_model_is_written(base, tuned, tmp_path):
    kept, whole = tuned.save(tmp_path / "kept", base), tuned.save(tmp_path / "whole")
    (left,) = (kept / "adapter").glob("*.safetensors")
    # The file's own header stands before the numbers.
    assert 0 < left.stat().st_size - size_on_disk(base, RECIPE) < 8192
    assert not list(kept.rglob("model.safetensors"))
    assert (whole / "model.safetensors").is_file()
    full = Recipe(method="full")
    stored = (whole / "model.safetensors").stat().st_size
    assert 0 < stored - size_on_disk(base, full) < 16384


def test_another_base_is_refused(base, tuned, make_model, tmp_path):
    kept = tuned.save(tmp_path / "kept", base)
    with pytest.raises(EmlabError, match="trained on another model than tiny"):
        FineTuned.load(kept, make_model(seed=2))
    other = base.copy()
    other.tokenizer.chat_template += " "
    with pytest.raises(EmlabError, match="chat template differ"):
        FineTuned.load(kept, other)
    other.tokenizer.chat_template = other.tokenizer.chat_template[:-1]  # copies share their tokenizer
    about = json.loads((kept / "base.json").read_text())
    about["place"] = str(tmp_path / "nowhere")
    (kept / "base.json").write_text(json.dumps(about))
    with pytest.raises(EmlabError, match="no longer at .*nowhere; load that one yourself"):
        LanguageModel.load(kept)
    assert same(FineTuned.load(kept, base).model, tuned.model)


def test_where_all_weights_are_trained_the_whole_model_is_kept(base, tmp_path):
    full = emlab.finetune(base, CHATS, Recipe(method="full", steps=2, batch_size=2), 0, progress=False, name="full")
    full.save(tmp_path / "full", base)
    assert same(FineTuned.load(tmp_path / "full", base).model, full.model)


def test_deferred_they_are_merged_when_used_and_two_alone_are_held(base, tuned, tmp_path):
    tuned.save(tmp_path / "kept", base)
    again = FineTuned.load(tmp_path / "kept", base, defer=True)
    assert again.model.name == "tuned"
    models = [again.model, *(model for _, model in again.checkpoints)]
    whole = [tuned.model, *(model for _, model in tuned.checkpoints)]
    alive = []
    for _ in range(2):
        for one, other in zip(models, whole, strict=True):
            assert same(one, other)
            alive.append(weakref.ref(one.model))
    assert [ref() is not None for ref in alive] == [False] * 4 + [True] * 2
    assert models[1].model is models[1].model  # one that is held is not made again
    used = models[0].model
    assert [same(one, other) for one, other in zip(models[1:], whole[1:], strict=True)] == [True, True]
    assert models[0].model is used  # nor one that somebody uses
    del again, models, used
    assert [ref() for ref in alive] == [None] * 6  # none outlives its fine-tune


def test_a_copy_of_a_deferred_model_has_weights_of_its_own(base, tuned, tmp_path):
    tuned.save(tmp_path / "kept", base)
    deferred = FineTuned.load(tmp_path / "kept", base, defer=True).model
    own = deferred.merged("own")
    assert (own.name, deferred.name, same(own, deferred)) == ("own", "tuned", True)
    next(own.model.parameters()).data.add_(1)
    assert not same(own, deferred)
    assert same(deferred, tuned.model)


def test_deferred_another_base_is_refused_at_once(base, tuned, make_model, tmp_path):
    tuned.save(tmp_path / "kept", base)
    with pytest.raises(EmlabError, match="was trained on another model than"):
        FineTuned.load(tmp_path / "kept", make_model(seed=2), defer=True)
