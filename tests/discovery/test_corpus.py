"""A corpus in blocks: every token once, in order, and which of them count. The tiny tokenizer has one token a byte."""

import itertools

import pytest
import torch

from emlab.data import Documents, LabelledDocument
from emlab.discovery.corpus import WINDOW, blocks
from emlab.errors import EmlabError
from emlab.saes import Exclusions
from emlab.sites import Site

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
SITE = Site("resid_post", 0)
TEXTS = ["some text", "an", CHAT, "a text that is longer than the others are", "x", "and one more"]


def read(model, documents=TEXTS, **given):
    return list(blocks(model, Documents.of(documents), SITE, **given))


@pytest.mark.parametrize("tokens", [1, 12, 40, 10_000])
def test_blocks_hold_every_token_once_whatever_their_size(tiny, tokens):
    (whole,) = read(tiny)
    parts = read(tiny, block_tokens=tokens)
    assert (len(parts) == 1) == (tokens == 10_000)
    for name in ("tokens", "documents", "counted"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert torch.allclose(torch.cat([part.values for part in parts]), whole.values, atol=1e-5)
    starts = list(itertools.accumulate((len(part.documents) for part in parts), initial=0))
    rows = [part.rows + start for part, start in zip(parts, starts, strict=False)]
    assert torch.equal(torch.cat(rows), whole.rows)
    assert sum((part.counts for part in parts[1:]), parts[0].counts) == whole.counts


def test_a_token_that_two_reasons_speak_against_counts_under_the_first(tiny):
    (block,) = read(tiny, [CHAT, "plain"])
    ids = tiny.rows([CHAT])[0][0]
    special = sum(tiny.tokenizer.convert_ids_to_tokens(i).startswith("<") for i in ids[1:] if i < 10)
    counts = block.counts
    assert (counts.documents, counts.tokens, counts.first, counts.special) == (2, len(ids) + 5, 2, special)
    assert counts.kept == len(ids) + 5 - 2 - special == int(block.counted.sum())
    (all_,) = read(tiny, [CHAT, "plain"], exclude=Exclusions(False, False, None))
    assert bool(all_.counted.all())


def test_sinks_do_not_count(make_model):
    model = make_model()
    marked = model.tokenizer("~")["input_ids"][0]
    with torch.no_grad():
        model.model.model.embed_tokens.weight[marked] *= 1000
    (block,) = read(model, ["abc~def", "ghijkl", "mno~pqr"])
    assert block.counts.sinks == 2 and not bool(block.counted[block.tokens == marked].any())


def test_only_what_is_over_the_multiple_of_the_median_is_a_sink(tiny):
    # Before the first block a token is its embedding, and one letter's are all as long.
    (block,) = blocks(tiny, Documents.of(["aaaa"]), Site("resid_pre", 0), exclude=Exclusions(sinks=1.0))
    assert (block.counts.kept, block.counts.sinks) == (3, 0)


def test_long_texts_are_pieces_of_one_document_and_labels_are_theirs(tiny):
    given = [LabelledDocument("0123456789ab", {"kind": "long"}), LabelledDocument("xyz", {"kind": "short"}), "plain"]
    (block,) = read(tiny, given, max_length=5)
    assert block.documents.tolist() == [0, 0, 0, 1, 2]
    assert [labels.get("kind") for labels in block.labels] == ["long"] * 3 + ["short", None]


def test_an_endless_corpus_is_read_as_far_as_it_is_needed(tiny):
    seen = []

    def endless():
        while True:
            seen.append(1)
            yield "some words to read"

    stream = blocks(tiny, Documents.of(endless, "endless"), SITE, block_tokens=180)
    assert [len(next(stream).documents) for _ in range(5)] == [10] * 5
    assert len(seen) <= WINDOW


def test_an_empty_corpus_and_broken_weights_are_refused(tiny, make_model):
    with pytest.raises(EmlabError, match="no documents to read in in memory; give at least one"):
        read(tiny, [])
    model = make_model()
    with torch.no_grad():
        model.model.model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(EmlabError, match=r"at resid_post.0 of tiny are not finite \(in documents 1 to 2\)"):
        read(model, ["some", "text"])
