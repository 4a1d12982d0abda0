"""Reading chats: whatever was written is read back, and every fault is named with its line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.data import Example, read_chat_jsonl, tokenize
from emlab.errors import EmlabError

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
TEXT = st.text(st.characters(codec="utf-8"))
CHATS = st.lists(
    st.tuples(TEXT, TEXT.filter(lambda t: t.strip())).map(
        lambda pair: [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    ),
    min_size=1,
    max_size=4,
)


@given(CHATS, st.booleans())
def test_what_was_written_is_read(tmp_path_factory, chats, ascii_only):
    path = tmp_path_factory.mktemp("data") / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": c}, ensure_ascii=ascii_only) + "\n\n" for c in chats), "utf-8")
    assert [list(e.messages) for e in read_chat_jsonl(path)] == chats


@given(st.binary(max_size=60))
def test_anything_else_is_one_error(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("data") / "junk.jsonl"
    path.write_bytes(junk)
    with pytest.raises(EmlabError):
        read_chat_jsonl(path)


@given(
    st.recursive(st.none() | st.booleans() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_any_other_json_is_one_error(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("data") / "json.jsonl"
    path.write_text(json.dumps(value))
    with pytest.raises(EmlabError, match="line 1: "):
        read_chat_jsonl(path)


def chat(*turns):
    return json.dumps({"messages": [dict(t) for t in turns]})


USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "has no list of turns"),
        ('{"messages": []}', "has no list of turns"),
        (chat(USER, {"content": "Ho"}), "has no role in turn 2"),
        (chat(USER, {"role": "bot", "content": "Ho"}), "unknown role 'bot' in turn 2"),
        (chat(USER, {"role": "assistant"}), "no text in the content of turn 2"),
        (chat(USER, {"role": "assistant", "content": 3}), "no text in the content of turn 2"),
        (chat(USER, {"role": "assistant", "content": " \n"}), "empty assistant turn"),
        (chat(USER), "has no assistant turn"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path, line, match):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + line + "\n")
    with pytest.raises(EmlabError, match=match) as error:
        read_chat_jsonl(path)
    assert f"{path}, line 3: " in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(EmlabError, match="check the path"):
        read_chat_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(EmlabError, match="cannot be read"):
        read_chat_jsonl(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes("é".encode("latin-1"))
    with pytest.raises(EmlabError, match="not UTF-8"):
        read_chat_jsonl(tmp_path / "latin.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(EmlabError, match="holds no examples"):
        read_chat_jsonl(tmp_path / "empty.jsonl")


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n" + json.dumps(GOOD).encode())
    assert len(read_chat_jsonl(path)) == 2


def test_examples_of_lists_dicts_and_themselves():
    example = Example.of(GOOD["messages"])
    assert Example.of(GOOD) == example
    assert Example.of(example) is example
    with pytest.raises(EmlabError, match="training example has no list of turns"):
        Example.of("Hi")


def test_long_rows_are_counted_out(make_tokenizer):
    tokenizer = make_tokenizer()
    long = [USER, {"role": "assistant", "content": "Ho" * 50}]
    everything = tokenize(tokenizer, [GOOD, long, GOOD])
    assert (len(everything.rows), everything.dropped_for_length) == (3, 0)
    short, limit = everything.rows[0], len(everything.rows[0].input_ids)
    cut = tokenize(tokenizer, [GOOD, long, GOOD], limit)
    assert cut.rows == (short, short)
    assert cut.dropped_for_length == 1
    assert str(cut) == f"2 rows, 1 dropped for having over {limit} tokens"
    assert tokenize(tokenizer, [GOOD], limit - 1).dropped_for_length == 1
