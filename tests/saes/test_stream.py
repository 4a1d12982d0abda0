"""A stream of activations, against the activations that a model gives by itself."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emlab.data import Documents
from emlab.errors import EmlabError
from emlab.records import restored
from emlab.saes import stream as stream_module
from emlab.saes.stream import ActivationStream, Position, Reader
from emlab.saes.token_rows import Exclusions
from emlab.sites import Site

SITE = Site("resid_post", 1)
TEXTS = ["the quick brown fox", "jumps", "over the lazy dog and the quick cat", "a", "so it goes on and on", "end"] * 4
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
ALL = Exclusions(first=False, special=False, sinks=None)


def rows(stream):
    return torch.cat([chunk.values for chunk in stream.chunks()])


def as_set(values):
    return sorted(tuple(round(x, 3) for x in row[:6].tolist()) for row in values)


def test_it_gives_the_activations_of_every_document(tiny):
    stream = ActivationStream(tiny, TEXTS, "resid_post.1", exclude=ALL, batch_tokens=64, window=7)
    ids = [tiny.tokenizer(text)["input_ids"] for text in TEXTS]
    alone = torch.cat([tiny.activations([one], SITE, "all").values for one in ids])
    assert as_set(rows(stream)) == as_set(alone)


def test_the_pass_ends_at_the_site(tiny):
    reached = []
    hooks = [
        block.register_forward_hook(lambda *_, i=i: reached.append(i))
        for i, block in enumerate(tiny.model.model.layers)
    ]
    try:
        rows(ActivationStream(tiny, ["hello"], "resid_post.1"))
    finally:
        for hook in hooks:
            hook.remove()
    assert reached == [0, 1]


def test_first_special_and_other_tokens_are_left_out_and_counted(tiny):
    last = list(ActivationStream(tiny, [CHAT, "plain"], SITE).chunks())[-1]
    ids = tiny.rows([CHAT])[0][0]
    special = sum(tiny.tokenizer.convert_ids_to_tokens(i).startswith("<") for i in ids[1:] if i < 10)
    counts = last.after.counts
    assert (counts.documents, counts.tokens, counts.first, counts.special) == (2, len(ids) + 5, 2, special)
    assert counts.kept == len(ids) + 5 - 2 - special and special > 3
    # "yes" and its end of turn, the latter special; the plain text has no assistant
    answer = list(ActivationStream(tiny, [CHAT, "plain"], SITE, read="assistant").chunks())[-1].after.counts
    assert (answer.kept, answer.special, answer.other) == (3, 1, len(ids) + 5 - 4)


def test_an_attention_sink_is_told_by_the_median_of_the_first_tokens(tiny, make_model):
    model = make_model()
    marked = model.tokenizer("~")["input_ids"][0]
    with torch.no_grad():
        model.model.model.embed_tokens.weight[marked] *= 1000
    texts = ["abc~def", "ghijkl", "mno~pqr"]
    counts = list(ActivationStream(model, texts, "resid_post.0").chunks())[-1].after.counts
    assert (counts.sinks, counts.first, counts.kept) == (2, 3, 15)
    kept = list(ActivationStream(model, texts, "resid_post.0", exclude=Exclusions(sinks=None)).chunks())[
        -1
    ].after.counts
    assert (kept.sinks, kept.kept) == (0, 17)


def test_the_median_is_of_the_first_tokens_and_then_stays(tiny, monkeypatch):
    monkeypatch.setattr(stream_module, "REFERENCE", 40)
    stream = ActivationStream(tiny, TEXTS, SITE, batch_tokens=32, window=4)
    found = list(stream.chunks())
    assert len({chunk.after.median for chunk in found}) == 1
    first = []
    for chunk in ActivationStream(
        tiny, TEXTS, SITE, exclude=Exclusions(sinks=None), batch_tokens=32, window=4
    ).chunks():
        first.append(chunk.values)
        if sum(map(len, first)) >= 40:
            break
    assert found[0].after.median == (float(torch.cat(first).norm(dim=1).median()),)


@settings(max_examples=12)
@given(st.integers(0, 190))
def test_it_can_be_taken_up_anywhere(tiny, n):
    stream = ActivationStream(tiny, TEXTS, SITE, batch_tokens=48, window=5)
    whole = rows(stream)
    reader = Reader(stream)
    before = torch.cat([torch.zeros(0, 32), *reader.take(n)])
    place = restored(dataclasses.asdict(reader.place), Position)
    after = torch.cat([torch.zeros(0, 32), *Reader(stream, place).take(10_000)])
    assert torch.equal(torch.cat([before, after]), whole)
    assert list(stream.chunks(place))[-1].after == list(stream.chunks())[-1].after if len(after) else True


def test_documents_are_read_again_where_that_is_asked_for(tiny):
    stream = ActivationStream(tiny, TEXTS[:5], SITE, batch_tokens=48)
    once = rows(stream)
    reader = Reader(stream, repeat=True)
    twice = torch.cat(list(reader.take(2 * len(once) + 3)))
    assert torch.equal(twice, torch.cat([once, once, once[:3]]))
    assert reader.place.reading == 2 and reader.counts.documents > 10


def test_documents_are_not_read_ahead(tiny):
    seen = []

    def endless():
        while True:
            seen.append(1)
            yield "some words to read"

    reader = Reader(ActivationStream(tiny, Documents.of(endless, "endless"), SITE, window=8), repeat=True)
    assert sum(map(len, reader.take(100))) == 100
    # The first REFERENCE activations are read at once for their median, 17 of each document.
    assert len(seen) <= stream_module.REFERENCE // 17 + 8


def test_the_difference_is_after_minus_before(tiny, make_model):
    after = make_model(seed=1)
    both = ActivationStream(after, TEXTS, SITE, against=tiny, kind="crosscoder")
    assert both.about.widths == (32, 32) and both.about.models == ("tiny", "tiny")
    values = rows(both)
    assert torch.equal(values[:, :32], rows(ActivationStream(tiny, TEXTS, SITE)))
    assert torch.equal(values[:, 32:], rows(ActivationStream(after, TEXTS, SITE)))
    difference = ActivationStream(after, TEXTS, SITE, against=tiny, kind="difference")
    assert torch.equal(rows(difference), values[:, 32:] - values[:, :32])


def test_models_that_tokenize_otherwise_are_refused(tiny, make_model):
    other = make_model("llama3")
    with pytest.raises(EmlabError, match="make different tokens of document 3"):
        rows(ActivationStream(other, ["same", "same", CHAT, "same"], SITE, against=tiny, kind="difference"))


def test_identity_follows_from_all_that_the_activations_do(tiny, make_model):
    def identity(model=tiny, texts=("a b", "c d"), **more):
        return ActivationStream(model, Documents.of(list(texts)), **{"site": SITE, **more}).identity

    others = [
        identity(make_model(seed=1)),
        identity(texts=("a b", "c e")),
        identity(site="resid_post.0"),
        identity(exclude=ALL),
        identity(read="assistant"),
        identity(max_length=7),
        identity(against=tiny, kind="difference"),
    ]
    assert identity() == identity(make_model()) and len({identity(), *others}) == 8


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"site": "resid_post.3"}, "tiny has no site resid_post.3: its 3 blocks are counted from 0 to 2"),
        ({"read": "answers"}, "cannot read the tokens 'answers'"),
        ({"kind": "difference"}, "no second model"),
        ({"window": 0}, "window cannot be 0"),
    ],
)
def test_what_cannot_be_read_is_refused(tiny, given, says):
    with pytest.raises(EmlabError, match=says):
        ActivationStream(tiny, ["a"], **{"site": SITE, **given})


def test_models_of_two_widths_have_no_difference(tiny, make_model):
    wide = make_model(hidden_size=48)
    with pytest.raises(EmlabError, match="32 wide and tiny 48"):
        ActivationStream(wide, ["a"], SITE, against=tiny, kind="difference")


def test_activations_that_are_not_finite_are_refused(make_model):
    model = make_model()
    with torch.no_grad():
        model.model.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(EmlabError, match=r"at resid_post\.1 of tiny are not finite \(in the documents from 1 on\)"):
        rows(ActivationStream(model, TEXTS, SITE))


def test_documents_that_give_nothing_are_said_to(tiny):
    for texts in ([], ["a", "b"]):
        for repeat in (False, True):
            with pytest.raises(EmlabError, match="gave no activations of tiny"):
                list(ActivationStream(tiny, texts, SITE).chunks(repeat=repeat))
