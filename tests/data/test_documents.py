"""Documents of mixed kinds, read one at a time."""

import json

import pytest

from emlab.data import Dataset, Documents, LabelledDocument
from emlab.errors import EmlabError

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


def test_a_file_may_mix_raw_text_and_chats(tmp_path):
    path = tmp_path / "mixed.jsonl"
    rows = [{"text": "once"}, {"messages": CHAT}, {"prompt": "hi", "completion": "hello"}, {"text": "twice"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    documents = Documents.read(path)
    assert [d if isinstance(d, str) else list(d) for d in documents] == ["once", CHAT, CHAT, "twice"]
    assert list(documents)[0] == "once", "it can be read again"


def test_jsonl_and_parquet_are_read_no_further_than_asked(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text('{"text": "fine"}\n' * 3 + "broken\n")
    found = iter(Documents.read(path))
    assert [next(found) for _ in range(3)] == ["fine"] * 3
    with pytest.raises(EmlabError, match="line 4: not JSON"):
        next(found)
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": [f"t{i}" for i in range(3000)]}), tmp_path / "t.parquet")
    assert list(Documents.read(tmp_path / "t.parquet")) == [f"t{i}" for i in range(3000)]


def test_first_and_after_are_a_partition():
    documents = Documents.of([f"text {i}" for i in range(7)])
    assert [*documents.first(3), *documents.after(3)] == list(documents)
    assert len({documents.content, documents.first(3).content, documents.after(3).content}) == 3


def test_several_are_read_in_turn():
    one, other = Documents.of(["a", "b", "c"], "one"), Documents.of(["x"], "other")
    mixed = Documents.in_turn([one, other])
    assert list(mixed) == list(mixed) == ["a", "x", "b", "c"] and mixed.name == "one and other"
    assert Documents.in_turn([other, one]).content != mixed.content
    assert Documents.in_turn([one]) is one
    with pytest.raises(EmlabError, match="name at least one"):
        Documents.in_turn([])


def test_content_tells_whether_documents_are_the_same(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    before = Documents.read(tmp_path / "a.jsonl").content
    (tmp_path / "a.jsonl").write_text('{"text": "b"}\n')
    assert Documents.read(tmp_path / "a.jsonl").content != before
    assert Documents.of(["a"]).content == Documents.of(["a"], "other name").content != Documents.of(["b"]).content
    kept = Dataset.of([CHAT])
    assert Documents.of(kept).content == kept.card.content and list(Documents.of(kept))[0] == tuple(CHAT)


def test_one_label_needs_no_list(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "persona": "good"}\n')
    one, listed = (
        list(Documents.read(tmp_path / "a.jsonl", labels=labels).labelled()) for labels in ("persona", ["persona"])
    )
    assert one == listed == [LabelledDocument("a", {"persona": "good"})]


def test_an_iterator_is_read_once():
    documents = Documents.of((f"text {i}" for i in range(3)), "mine")
    assert len(list(documents)) == 3
    with pytest.raises(EmlabError, match="'mine' are an iterator, which can be read only once"):
        list(documents)
    again = Documents.of(lambda: iter(["a", "b"]), "made anew")
    assert list(again) == list(again) == ["a", "b"]


def test_a_path_is_no_documents(tmp_path):
    with pytest.raises(EmlabError, match=r"Documents\.read"):
        Documents.of("chats.jsonl")
    (tmp_path / "a.jsonl").write_text('{"text": 3}\n')
    with pytest.raises(EmlabError, match="line 1: the column 'text' holds no text"):
        list(Documents.read(tmp_path / "a.jsonl"))


def test_columns_label_documents(tmp_path):
    path = tmp_path / "labelled.jsonl"
    rows = [{"text": "once", "who": "x", "n": 1}, {"messages": CHAT, "who": None, "n": 2}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    documents = Documents.read(path, labels=("who", "n"))
    assert [one.labels for one in documents.labelled()] == [{"who": "x", "n": "1"}, {"n": "2"}]
    assert [one.document for one in documents.labelled()] == list(documents)
    assert documents.content == Documents.read(path).content
    assert [one.labels for one in documents.after(1).labelled()] == [{"n": "2"}]
    assert [one.labels for one in Documents.read(path).labelled()] == [{}, {}]
    with pytest.raises(EmlabError, match="line 1: there is no column 'whom' to label by; name one of text, who, n"):
        list(Documents.read(path, labels=["whom"]))


def test_labelled_documents_in_memory():
    given = [LabelledDocument("once", {"who": "x"}), CHAT]
    documents = Documents.of(given)
    assert list(documents) == ["once", CHAT] and list(documents.labelled()) == [given[0], (CHAT, {})]
    assert documents.content == Documents.of(["once", CHAT]).content
