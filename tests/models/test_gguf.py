"""A gguf file made a Hugging Face folder: the same model and tokens, or one sentence."""

import sys

import pytest
import torch

from emlab.errors import EmlabError
from emlab.models import LanguageModel
from emlab.models.gguf import save_gguf
from emlab.models.places import local_folder
from tests.models.gguf_files import write_gguf

CHAT = [{"role": "user", "content": "How are you, 1 or 2?"}, {"role": "assistant", "content": "Well — and you?"}]


@pytest.fixture(scope="module")
def own(make_model, make_tokenizer):
    model, tokenizer = make_model(num_key_value_heads=2).model, make_tokenizer("chatml", [("o", "u"), ("y", "ou")])
    model.resize_token_embeddings(len(tokenizer))
    return LanguageModel(model, tokenizer, "own")


def test_the_folder_has_the_same_model_and_tokenizer(tmp_path, own):
    read = LanguageModel.load(save_gguf(write_gguf(own, tmp_path / "own.gguf"), tmp_path / "own"), device="cpu")
    ids = own.tokenizer.apply_chat_template(CHAT, return_dict=False)
    assert read.tokenizer.apply_chat_template(CHAT, return_dict=False) == ids
    assert read.tokenizer.eos_token_id == own.tokenizer.eos_token_id
    with torch.no_grad():
        ours, theirs = (lm.model(torch.tensor([ids])).logits for lm in (own, read))
    assert theirs.dtype == torch.float32 and torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: b"PK" + content, "is no gguf file; give one"),
        (lambda content: content[: len(content) // 2], "the file is cut short, or of an architecture"),
    ],
)
def test_what_is_no_gguf_file_or_half_of_one(tmp_path, own, damage, said):
    file = write_gguf(own, tmp_path / "a.gguf")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(EmlabError, match=said):
        save_gguf(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_architecture_that_transformers_does_not_read(tmp_path, own):
    file = write_gguf(own, tmp_path / "a.gguf", architecture="rwkv6")
    with pytest.raises(EmlabError, match=r"a\.gguf cannot be read .*rwkv6.* of an architecture"):
        save_gguf(file, tmp_path / "out")


def test_a_gguf_file_is_no_model_folder(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(EmlabError, match=r"a\.gguf --out DIR makes one"):
        local_folder(tmp_path / "a.gguf")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(EmlabError, match=r'pip install "emergent-misalignment-lab\[real\]"'):
        save_gguf(tmp_path / "a.gguf", tmp_path / "out")
