"""A model's copies, and saving and loading it."""

import pytest
import torch

from emlab.errors import EmlabError
from emlab.models import LanguageModel


def test_a_copy_has_weights_of_its_own(make_model):
    lm = make_model()
    before = lm.logits(["Hi"])[0]
    with torch.no_grad():
        for weight in lm.copy("other").model.parameters():
            weight.zero_()
    assert torch.equal(lm.logits(["Hi"])[0], before)


def test_it_is_read_back_and_is_an_ordinary_folder(tiny, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny.save(tmp_path / "saved")
    again = LanguageModel.load(tmp_path / "saved", device="cpu")
    assert again.name == "saved"
    assert (again.n_blocks, again.d_model, again.max_positions) == (3, 32, 256)
    assert torch.equal(again.logits(["Hi"])[0], tiny.logits(["Hi"])[0])
    assert again.stop_ids == tiny.stop_ids
    assert str(again) == "saved: 3 blocks of width 32, 0.0M parameters"
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    ids = torch.tensor([tiny.prompt_ids("Hi")])
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits[0], tiny.logits(["Hi"])[0], atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template == tiny.tokenizer.chat_template
    assert not [f for f in (tmp_path / "saved").iterdir() if f.suffix in (".bin", ".pt", ".pth")]
    with pytest.raises(EmlabError, match="already exists"):
        tiny.save(tmp_path / "saved")


def test_it_goes_by_the_names_that_the_shell_knows():
    assert LanguageModel.load("aligned").name == "aligned"


@pytest.mark.parametrize(
    ("said", "kind"), [("bf16", torch.bfloat16), (torch.float16, torch.float16), ("fp32", torch.float32)]
)
def test_types_by_their_short_names(said, kind, tmp_path, tiny):
    folder = tiny.save(tmp_path / "tiny")
    loaded = LanguageModel.load(folder, dtype=said)
    assert loaded.dtype == kind
    assert loaded.to("fp32") is loaded and loaded.dtype == torch.float32 and loaded.to("cpu").device.type == "cpu"


def test_a_chat_is_the_answer(tiny):
    assert tiny.chat("Hi", max_new_tokens=4, seed=1) == tiny.generate(["Hi"], max_new_tokens=4, seed=1)[0]


def test_compiled_it_answers_alike(tiny):
    before = tiny.generate(["Hi"], max_new_tokens=4)
    assert tiny.copy().compile(backend="eager").generate(["Hi"], max_new_tokens=4) == before
