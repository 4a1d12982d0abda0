"""Contexts: the right documents, cut around the right tokens, and samples that are uniform. One token is one byte, and
the latents are written down letter by letter."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emlab.data import Documents, LabelledDocument
from emlab.discovery import ContextSettings, read_contexts, top_contexts
from emlab.discovery.context_reading import Speller
from emlab.errors import EmlabError
from emlab.saes import Exclusions

ALL = Exclusions(True, True, None)  # embeddings differ in norm, and no sinks are meant here


def one_of(model, letters, documents, *levels, latents=(0,), seed=0, **given):
    sae, site = letters(model, *levels)
    return read_contexts(model, sae, latents, site, documents, ContextSettings(exclude=ALL, **given), seed)


def test_the_strongest_documents_around_their_peaks(tiny, letters):
    sae, site = letters(tiny, {"b": 9.0}, {"b": 9.0, "c": 1.0, "d": 3.0, "e": 2.0})
    found = top_contexts(tiny, sae, 1, site, ["bxx", "xcdey", "xxc"], ["x", "y", "z"], n=2, window=1)
    # The first token of a document, where attention sinks sit, does not count.
    assert [c.label for c in found] == ["y", "z"] and [c.document for c in found] == [1, 2]
    assert found[0].tokens == ("c", "d", "e") and found[0].text == "cde"
    assert found[0].activations == (1.0, 3.0, 2.0) and found[0].peak == 3.0
    assert found[1].tokens == ("x", "c")


def test_of_equals_the_first_stays_and_each_row_gives_one(tiny, letters):
    found = one_of(tiny, letters, ["xaxax", "xa", "xxa", "xx"], {"a": 1.0}, top=2, side=1).latents[0]
    assert [(c.document, c.text) for c in found.top] == [(0, "xax"), (1, "xa")]
    assert found.activity[0].active == 4 and found.activity[0].fires.rate == 0.75


def test_texts_give_a_context_a_piece_and_name_their_document(tiny, letters):
    found = one_of(tiny, letters, ["xxxxaxxxxb", "y"], {"a": 1.0, "b": 2.0}, max_length=5, side=2).latents[0]
    assert [(c.document, c.text, c.peak) for c in found.top] == [(0, "xxb", 2.0), (0, "xxa", 1.0)]


def test_all_that_is_found_is_the_same_whatever_the_blocks_and_the_other_latents(tiny, letters):
    texts = [LabelledDocument(f"x{'abcdefgh'[i % 8] * (i % 5)} and {i}", {"k": str(i % 2)}) for i in range(40)]
    levels = [{"a": 1.0, "b": 2.0, "c": 0.5}, {"d": 1.0}, {" ": 1.0, "e": 2.0}]
    settings = {"sample": 7, "silent": 5, "side": 2, "seed": 3}
    whole = one_of(tiny, letters, texts, *levels, latents=(0, 1, 2), **settings)
    for tokens in (1, 37, 200):
        again = one_of(tiny, letters, texts, *levels, latents=(0, 1, 2), block_tokens=tokens, **settings)
        assert str(again) == str(whole)
    for j in range(3):
        alone = one_of(tiny, letters, texts, *levels, latents=(j,), **settings)
        assert str(alone.latents[0]) == str(whole.latents[j])
    assert str(one_of(tiny, letters, texts, *levels, **{**settings, "seed": 4}).latents[0]) != str(whole.latents[0])


def test_firing_and_silent_stretches_are_what_they_are_called(tiny, letters):
    texts = [f"x{'y' * (i % 7)}{'a' if i % 3 else ''}{'z' * (i % 11)}" for i in range(60)]
    found = one_of(tiny, letters, texts, {"a": 1.0}, sample=100, silent=100, side=3).latents[0]
    assert len(found.sample) == 40 and all("a" in c.text and c.peak == 1.0 for c in found.sample)
    assert found.silent and all("a" not in c.text and c.peak == 0.0 for c in found.silent)
    assert all(len(c.tokens) <= 7 and c.text in texts[c.document] for c in (*found.sample, *found.silent))
    # Stretches of one document beside one that fires are silent too.
    assert any("a" in texts[c.document] for c in found.silent)


def test_a_text_is_cut_into_stretches_of_a_peak_and_its_sides(tiny, letters):
    # Stretches of three: xax, xxa and a; each is shown around its peak. Around no token in five is there no a.
    found = one_of(tiny, letters, ["xaxxxaaxxx"], {"a": 1.0}, sample=100, silent=100, side=1).latents[0]
    assert sorted(c.text for c in found.sample) == ["aax", "xaa", "xax"]
    assert {c.text for c in found.silent} <= {"xxx", "xx"}


def test_the_sample_is_uniform_over_the_stretches_that_fire(tiny, letters):
    # One in five documents fires strongly; of 6 drawn, each with the same chance, so do 1.2 in the mean.
    texts = ["xb" if i % 5 == 0 else "xa" for i in range(50)]
    drawn = Counter()
    for seed in range(60):
        found = one_of(tiny, letters, texts, {"a": 1.0, "b": 9.0}, sample=6, silent=0, side=1, seed=seed).latents[0]
        assert [c.peak for c in found.sample] == sorted(c.peak for c in found.sample)
        drawn.update(c.document for c in found.sample)
    strong = sum(n for document, n in drawn.items() if document % 5 == 0)
    assert sum(drawn.values()) == 360 and abs(strong - 72) < 3 * (360 * 0.2 * 0.8) ** 0.5
    assert len(drawn) == 50 and max(drawn.values()) < 20


def test_quantiles_are_equal_parts_of_the_sample(tiny, letters):
    texts = ["x" + letter for letter in "abcdefghij"]
    levels = {letter: float(i + 1) for i, letter in enumerate("abcdefghij")}
    found = one_of(tiny, letters, texts, levels, sample=10, silent=0, side=1).latents[0]
    parts = found.quantiles(5, 2)
    assert [(q.low, q.high) for q in parts] == [(0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0)]
    assert [[c.peak for c in q.contexts] for q in parts] == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert [[c.peak for c in q.contexts] for q in found.quantiles(2, 1)] == [[3], [8]]
    assert len(found.quantiles(40, 1)) == 10, "an empty part is left out"
    with pytest.raises(EmlabError, match="0 quantiles"):
        found.quantiles(0)


def test_a_latent_that_never_fires_has_nothing_and_is_no_error(tiny, letters):
    found = one_of(tiny, letters, ["some text", "more"], {"q": 1.0}).latents[0]
    assert not found.fires and found.top == found.sample == found.quantiles() == ()
    assert found.activity[0].active == 0 and found.activity[0].peak == 0.0 and found.silent


@pytest.mark.parametrize(
    ("documents", "given", "said"),
    [
        ([], {}, "no documents to read"),
        (["a", "b"], {}, "No token of in memory counts"),
        (["abc"], {"latents": [1]}, "no latent 1"),
        (["abc"], {"latents": [-1]}, "no latent -1"),
        (["abc"], {"latents": []}, "at least one latent"),
        (["abc"], {"side": 0}, "one token on either side"),
    ],
)
def test_what_goes_wrong_is_one_sentence(tiny, letters, documents, given, said):
    with pytest.raises(EmlabError, match=said):
        one_of(tiny, letters, documents, {"a": 1.0}, **given)


def test_an_sae_of_another_width_is_refused(tiny, make_model, letters):
    sae, site = letters(make_model(hidden_size=16), {"a": 1.0})
    with pytest.raises(EmlabError, match="the SAE reads 16 dimensions and tiny at resid_pre.0 has 32"):
        read_contexts(tiny, sae, [0], site, ["abc"])


def test_an_iterator_is_read_once_and_not_kept(tiny, letters):
    found = one_of(tiny, letters, Documents.of((f"x{i}a" for i in range(9)), "mine"), {"a": 1.0})
    assert found.documents == "mine" and found.counts.documents == 9 and len(found.latents[0].top) == 9


@given(st.lists(st.integers(10, 265), max_size=12))
def test_tokens_spelled_apart_are_the_text(tiny, ids):
    parts = Speller(tiny.tokenizer)(ids)
    assert len(parts) == len(ids)
    assert "".join(parts) == tiny.tokenizer.decode(ids).rstrip("\ufffd")


def test_a_character_of_several_tokens_is_shown_once_it_is_whole(tiny):
    spell = Speller(tiny.tokenizer)
    assert spell(tiny.tokenizer("aé→b")["input_ids"]) == ("a", "", "é", "", "", "→", "b")
    assert spell(tiny.tokenizer("ab a")["input_ids"]) == ("a", "b", " ", "a")


def test_a_tokenizer_that_drops_the_first_space_keeps_those_between():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.WordLevel({"▁the": 0, "▁cat": 1, "s": 2, "▁.": 3}, unk_token="s"))
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare)
    assert tokenizer.decode([1]) == "cat", "the test needs such a tokenizer"
    assert Speller(tokenizer)([0, 1, 2, 0, 3]) == ("the", " cat", "s", " the", " ."), "and no space is tidied away"


def test_many_latents_are_kept_at_once(tiny, letters):
    """Against a brute-force reading of all documents, for a hundred latents that are random projections."""
    torch.manual_seed(0)
    from types import SimpleNamespace

    weight = torch.randn(32, 100)
    sae = SimpleNamespace(cfg=SimpleNamespace(d_in=32, d_sae=100), W_dec=weight.T, encode=lambda x: (x @ weight).relu())
    texts = [f"text {i * 37 % 101} of {i}" for i in range(30)]
    site = letters(tiny, {"a": 1.0})[1]
    found = read_contexts(tiny, sae, range(100), site, texts, ContextSettings(3, exclude=ALL, block_tokens=64))
    read = tiny.activations([tiny.tokenizer(t)["input_ids"] for t in texts], site, "all")
    values = (read.values @ weight).relu() * weight.norm(dim=0) * (read.positions > 0)[:, None]
    peaks = torch.stack([values[read.rows == i].amax(0) for i in range(30)])
    for j, one in enumerate(found.latents):
        wanted = peaks[:, j].sort(descending=True).values[:3]
        assert torch.allclose(torch.tensor([c.peak for c in one.top]), wanted, atol=1e-4)
