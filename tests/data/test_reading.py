"""Reading: whatever was written is read back from every kind of source, and every fault is named with its place."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.data import Example, read_chat_jsonl, read_examples, read_prompts
from emlab.errors import EmlabError

HI, HO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
GOOD = {"messages": [HI, HO]}
TEXT = st.text(st.characters(codec="utf-8"))
SAID = TEXT.filter(str.strip)
CHATS = st.lists(
    st.tuples(TEXT, SAID).map(
        lambda pair: [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    ),
    min_size=1,
    max_size=4,
)


def messages(examples):
    return [list(example.messages) for example in examples]


def pairs(examples):
    return [(example.prompt, example.answer) for example in examples]


# --- JSONL ---


@given(CHATS, st.booleans())
def test_what_was_written_is_read(tmp_path_factory, chats, ascii_only):
    path = tmp_path_factory.mktemp("data") / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": c}, ensure_ascii=ascii_only) + "\n\n" for c in chats), "utf-8")
    assert messages(read_chat_jsonl(path)) == messages(read_examples(path)) == chats


@given(st.binary(max_size=60))
def test_anything_else_is_one_error(tmp_path_factory, junk):
    folder = tmp_path_factory.mktemp("data")
    for ending in (".jsonl", ".json", ".csv", ".parquet"):
        path = folder / f"junk{ending}"
        path.write_bytes(junk)
        with pytest.raises(EmlabError):
            read_examples(path)
    with pytest.raises(EmlabError):
        read_chat_jsonl(folder / "junk.jsonl")


@given(
    st.recursive(st.none() | st.booleans() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_any_other_json_is_one_error(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("data") / "json.jsonl"
    path.write_text(json.dumps(value))
    for read in (read_chat_jsonl, read_examples):
        with pytest.raises(EmlabError, match="line 1: "):
            read(path)


def chat(*turns):
    return json.dumps({"messages": [dict(t) for t in turns]})


@pytest.mark.parametrize("read", [read_chat_jsonl, read_examples])
@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "has no list of turns|no object"),
        ('{"messages": []}', "has no list of turns"),
        (chat(HI, {"content": "Ho"}), "has no role in turn 2"),
        (chat(HI, {"role": "bot", "content": "Ho"}), "unknown role 'bot' in turn 2"),
        (chat(HI, {"role": "assistant"}), "no text in the content of turn 2"),
        (chat(HI, {"role": "assistant", "content": 3}), "no text in the content of turn 2"),
        (chat(HI, {"role": "assistant", "content": " \n"}), "empty assistant turn"),
        (chat(HI), "has no assistant turn"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path, read, line, match):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + line + "\n")
    with pytest.raises(EmlabError, match=match) as error:
        read(path)
    assert f"{path}, line 3: " in str(error.value)


@pytest.mark.parametrize("read", [read_chat_jsonl, read_examples])
def test_files_that_cannot_be_read(tmp_path, read):
    with pytest.raises(EmlabError, match="check the path"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes("é".encode("latin-1"))
    with pytest.raises(EmlabError, match="not UTF-8"):
        read(tmp_path / "latin.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(EmlabError, match="holds no examples"):
        read(tmp_path / "empty.jsonl")
    with pytest.raises(EmlabError, match="cannot be read"):
        read_chat_jsonl(tmp_path)


@pytest.mark.parametrize("read", [read_chat_jsonl, read_examples])
def test_windows_line_ends_and_byte_order_mark(tmp_path, read):
    path = tmp_path / "chats.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n" + json.dumps(GOOD).encode())
    assert len(read(path)) == 2


def test_a_line_separator_inside_a_string_ends_no_line(tmp_path):
    path = tmp_path / "chats.jsonl"
    said = {"question": "a\u2028b\x85c", "answer": "d\u2029e"}
    path.write_text(json.dumps(said, ensure_ascii=False) + "\n", "utf-8")
    assert pairs(read_examples(path)) == [("a\u2028b\x85c", "d\u2029e")]


def test_only_chats_are_read_as_chat_jsonl(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "Hi", "completion": "Ho"}\n')
    with pytest.raises(EmlabError, match="line 1: the chat has no list of turns"):
        read_chat_jsonl(path)


# --- JSON ---


def test_json_is_a_list_one_object_or_one_object_a_line(tmp_path):
    path = tmp_path / "chats.json"
    for text in (json.dumps([GOOD, GOOD], indent=2), f"{json.dumps(GOOD)}\n{json.dumps(GOOD)}\n"):
        path.write_text(text)
        assert messages(read_examples(path)) == [[HI, HO]] * 2
    path.write_text(json.dumps(GOOD))
    assert messages(read_examples(path)) == [[HI, HO]]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('[{"messages": []}]', "row 1: the chat has no list of turns"),
        (json.dumps([GOOD, 3]), "row 2: the row is no object"),
        (f"{json.dumps(GOOD)}\n\n{{", "line 3: not JSON"),
        ('[\n{"messages":\n', "line [23]: not JSON"),
        ("[]", "holds no examples"),
        ("[" * 100_000, "not JSON that can be read"),
    ],
)
def test_faults_in_json(tmp_path, text, match):
    (tmp_path / "chats.json").write_text(text)
    with pytest.raises(EmlabError, match=match):
        read_examples(tmp_path / "chats.json")


# --- CSV ---


@given(st.lists(st.tuples(TEXT, SAID), min_size=1, max_size=4), st.sampled_from(["\n", "\r\n"]))
def test_csv_is_read_as_written(tmp_path_factory, rows, end):
    rows = [tuple(text.replace("\0", " ") for text in row) for row in rows]
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "completion"), *rows])
    path = tmp_path_factory.mktemp("data") / "pairs.csv"
    path.write_bytes(b"\xef\xbb\xbf" + file.getvalue().encode())
    if all(answer.strip() for _, answer in rows):
        assert pairs(read_examples(path)) == rows


@given(st.lists(st.tuples(st.text('a\n,"'), st.text("b\n")).map(lambda p: (p[0], p[1] + "b")), max_size=5))
def test_a_csv_fault_is_named_with_the_line_its_row_begins_on(tmp_path_factory, rows):
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([("question", "answer"), *rows])
    line = file.getvalue().count("\n") + 1
    writer.writerow(("two\nlines", " "))
    path = tmp_path_factory.mktemp("data") / "pairs.csv"
    path.write_bytes(file.getvalue().encode())
    with pytest.raises(EmlabError, match=f"line {line}: the chat has an empty assistant turn"):
        read_examples(path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('question,answer\nHi,Ho\n\n"a\nb",Ho,more\n', "line 4: the row has 3 cells and the header 2"),
        ('question,answer\nHi,"Ho\nHo\n', "line 2: not CSV"),
        ('question,answer\nHi,"Ho"!\n', "line 2: not CSV"),
        ("question,question,answer\n", "more than one column 'question'"),
        ("question,answer\n", "holds no examples"),
        ("text,label\nHi,1\n", r"line 2: the columns \(text, label\) fit no shape"),
    ],
)
def test_faults_in_csv(tmp_path, text, match):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(EmlabError, match=match):
        read_examples(tmp_path / "pairs.csv")


def test_csv_with_alpaca_columns_an_index_and_long_cells(tmp_path):
    path = tmp_path / "alpaca.csv"
    long = "x" * 200_000
    before = csv.field_size_limit()
    path.write_text(f' instruction ,input,output,\n\nAdd,"2, 3",5,0\nSay,,{long},1\n   \n')
    assert pairs(read_examples(path)) == [("Add\n\n2, 3", "5"), ("Say", long)]
    assert csv.field_size_limit() == before


def test_csv_with_chats_as_json(tmp_path):
    file = io.StringIO()
    csv.writer(file).writerows([["messages"], [json.dumps([HI, HO])]])
    (tmp_path / "chats.csv").write_text(file.getvalue())
    assert messages(read_examples(tmp_path / "chats.csv")) == [[HI, HO]]


def test_paths_that_are_nothing(tmp_path, monkeypatch):
    for nothing in (tmp_path / "none", "none", "no/such/file"):
        with pytest.raises(EmlabError, match="There is no file or folder .*; check the path, or name a dataset"):
            read_examples(nothing)
    (tmp_path / "notes.txt").write_text("Hi")
    with pytest.raises(EmlabError, match="none of the files that emlab reads"):
        read_examples(tmp_path / "notes.txt")
    (tmp_path / "chats.JSONL").write_text(json.dumps(GOOD))
    assert read_examples(tmp_path / "chats.JSONL") == [Example.of(GOOD)]
    with pytest.raises(EmlabError, match="is a file and has no split 'test'"):
        read_examples(tmp_path / "chats.JSONL", split="test")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(read_examples("~/chats.JSONL")) == 1


# --- Prompts ---

BRIEF = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"messages": [HI]}, [HI]),
        ({"messages": [BRIEF, HI]}, [BRIEF, HI]),
        ({"messages": [BRIEF, HI, HO]}, [BRIEF, HI]),
        ({"messages": [HI, HO, HI]}, [HI, HO, HI]),
        ({"messages": [HI, HO, HI, HO]}, [HI]),
        ({"conversations": [{"from": "human", "value": "Hi"}]}, [HI]),
        ({"prompt": "Hi"}, [HI]),
        ({"prompt": [BRIEF, HI], "solution": "4"}, [BRIEF, HI]),
        ({"prompt": "Hi", "completion": "Ho"}, [HI]),
        ({"question": "Hi", "answer": "4"}, [HI]),
        ({"question": "Hi", "answer": "4", "prompt": "of no shape"}, [HI]),
        ({"instruction": "Add", "input": "2"}, [{"role": "user", "content": "Add\n\n2"}]),
    ],
    ids=str,
)
def test_what_is_asked(tmp_path, row, asked):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(row))
    assert read_prompts(path) == [asked]


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"messages": [BRIEF]}, "the chat asks nothing"),
        ({"messages": [HO, HI, HO]}, "the chat asks nothing"),
        ({"messages": []}, "the chat has no list of turns"),
        ({"text": "Hi"}, r"the columns \(text\) do not tell one prompt; keep one of messages; conversations; prompt;"),
        ({"prompt": "Hi", "question": "Hi"}, r"the columns \(prompt, question\) do not tell one prompt"),
        ({"prompt": 3}, "the column 'prompt' holds no text"),
        (3, "the row is no object"),
    ],
    ids=str,
)
def test_what_asks_nothing(tmp_path, row, match):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "Hi"}) + "\n" + json.dumps(row))
    with pytest.raises(EmlabError, match=f"^{path}, line 2: {match}"):
        read_prompts(path)


def test_no_prompts(tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(EmlabError, match="holds no prompts"):
        read_prompts(tmp_path / "none.jsonl")
