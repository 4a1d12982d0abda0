"""What counts the tokens of a model behind an endpoint."""

import sys

import pytest

from emlab.models.token_counts import counter

TEXTS = ["Why is the sky blue?", "Because of Rayleigh."]


def test_without_anything_better_four_characters_are_a_token():
    count, by = counter("gpt-4o")
    assert by == "a quarter of the characters" and count(TEXTS) == 40 // 4
    assert count([]) == 0


def test_a_folder_without_a_tokenizer_is_none(tmp_path):
    assert counter(str(tmp_path))[1] == "a quarter of the characters"


class Encoding:
    name = "words"

    def encode_ordinary(self, text):
        return text.split()


@pytest.mark.parametrize("model", ["gpt-4o", "unknown"])
def test_openais_models_are_counted_by_tiktoken_where_it_is_there(monkeypatch, model):
    """tiktoken fetches its vocabularies, so that here only its place is tested."""
    tiktoken = pytest.importorskip("tiktoken")

    def encoding(name):
        if name == "unknown":
            raise KeyError(name)
        return Encoding()

    monkeypatch.setattr(tiktoken, "encoding_for_model", encoding)
    count, by = counter(model, openai=True)
    expected = (8, "tiktoken's words") if model == "gpt-4o" else (10, "a quarter of the characters")
    assert (count(TEXTS), by) == expected


def test_without_tiktoken(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    assert counter("gpt-4o", openai=True)[1] == "a quarter of the characters"
