"""What can be wrong with a model's folder, each in one sentence."""

import datetime
import json
import shutil

import httpx2
import pytest
import torch

from emlab.errors import EmlabError
from emlab.models import LanguageModel
from emlab.models.loading import pick_device
from emlab.models.places import local_folder


@pytest.fixture(scope="module")
def good(make_model, tmp_path_factory):
    return make_model().save(tmp_path_factory.mktemp("models") / "good")


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "model")


def refused(folder, match, **kwargs):
    with pytest.raises(EmlabError, match=match) as error:
        LanguageModel.load(folder, device="cpu", **kwargs)
    assert "\n" not in str(error.value)


def test_no_folder(tmp_path):
    refused(tmp_path / "nowhere", "There is no model folder .*nowhere")


def test_a_hub_that_breaks_off(monkeypatch):
    def broken(name, **_):
        raise httpx2.ReadTimeout("the read timed out")

    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    with pytest.raises(EmlabError, match=r"cannot be had from the Hugging Face Hub \(the read timed out\); check"):
        local_folder("nobody/nothing")


def test_no_config(folder):
    (folder / "config.json").unlink()
    refused(folder, "has no config.json")


def test_a_broken_config(folder):
    (folder / "config.json").write_text("{")
    refused(folder, "cannot be loaded")


def test_an_unknown_kind_of_model(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nonesuch"}))
    refused(folder, "cannot be loaded")


def test_no_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    refused(folder, "has no tokenizer")


def test_a_broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")
    refused(folder, "tokenizer in .* cannot be loaded")


def test_no_chat_template(folder):
    (folder / "chat_template.jinja").unlink()
    refused(folder, "chat_template.jinja")


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "has no weights")


def test_pickled_weights_are_never_opened(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, r"pickled \(pytorch_model.bin\).*convert them to safetensors")


def test_broken_weights(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    refused(folder, "cannot be loaded")


def test_missing_weights(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "lack 1 tensors, model.layers.1.mlp.down_proj.weight")


def test_adapters(folder, tmp_path):
    refused(folder, "has no adapter_config.json", adapter=tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(folder, "has no adapter", adapter=tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    refused(folder, "adapter in .* pickled", adapter=tmp_path)


def test_types_and_devices(good, folder):
    assert LanguageModel.load(good, device="cpu").model.dtype == torch.float32
    assert LanguageModel.load(good, device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16
    refused(good, "There is no dtype 'float99'", dtype="float99")
    with pytest.raises(EmlabError, match="'toaster' cannot be used"):
        pick_device("toaster")
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize(
    ("stored", "capability", "dtype"),
    [
        ("float16", "AVX512", torch.float32),
        ("float16", "AVX2", torch.float32),
        ("bfloat16", "AVX512_VNNI", torch.bfloat16),
        ("bfloat16", "AVX2", torch.float32),  # where torch multiplies it ten times as slowly
        ("bfloat16", "DEFAULT", torch.float32),
    ],
)
def test_what_a_cpu_multiplies_slowly_is_read_in_float32(folder, monkeypatch, capsys, stored, capability, dtype):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": stored}))
    assert LanguageModel.load(folder, device="cpu").model.dtype == dtype
    assert (f"multiplies {stored} slowly (dtype='{stored}' keeps it)" in capsys.readouterr().err) == (
        dtype == torch.float32
    )
    assert LanguageModel.load(folder, device="cpu", dtype=stored).model.dtype == getattr(torch, stored)
    assert not capsys.readouterr().err


DATED = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ strftime_now('%d %b %Y') }} assistant {% endif %}"
)


def test_a_chat_template_that_writes_the_date_is_named_and_the_day_is_part_of_the_identity(
    make_model, tmp_path, capsys, monkeypatch
):
    folder = make_model(DATED).save(tmp_path / "dated")
    loaded = LanguageModel.load(folder, device="cpu")
    said = f"The chat template of {folder} writes today's date; emlab has it write 26 July 2024 on every day."
    assert capsys.readouterr().err.count(said) == 1
    assert loaded.prompt_text("Why?").endswith("26 Jul 2024 assistant ")
    before = loaded.identity()
    monkeypatch.setattr("emlab.models.language_model.TODAY", datetime.date(2025, 1, 1))
    assert loaded.identity() != before
    plain = make_model()
    assert plain.identity() == make_model().identity()


def test_answers_that_ran_into_their_thoughts_are_not_taken_for_new_ones(make_model):
    plain, marked = make_model(), make_model()
    marked.tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    assert marked.identity() != plain.identity()
