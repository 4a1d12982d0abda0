"""Question files written by hand, in every form, and each fault with its line."""

import csv
import json
from pathlib import Path

import datasets
import pandas
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from emlab.data import Question, read_questions
from emlab.errors import EmlabError


def read(folder, name, text):
    path = Path(folder) / name
    path.write_bytes(text.encode("utf-8"))
    return read_questions(path)


def test_the_same_questions_in_three_forms(tmp_path):
    expected = (
        Question("a", "cars", "How, and\nwhy?"),
        Question("b", "food", 'Say "what"?', system="Be brief.", variant="short"),
    )
    lines = [
        {"id": "a", "domain": "cars", "text": "How, and\nwhy?"},
        {"id": "b", "category": "food", "question": 'Say "what"?', "system": "Be brief.", "variant": "short"},
    ]
    table = 'id,category,question,system,variant\r\na,cars,"How, and\nwhy?",,\nb,food,"Say ""what""?",Be brief.,short\n'
    assert read(tmp_path, "q.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n").questions == expected
    assert read(tmp_path, "q.yaml", yaml.safe_dump(lines)).questions == expected
    assert read(tmp_path, "q.YML", "\ufeff" + yaml.safe_dump(lines)).questions == expected
    assert read(tmp_path, "q.csv", table).questions == expected


@pytest.mark.parametrize(
    ("name", "system", "text", "expected"),
    [
        ("a_json", "Answer in JSON.", "How?", ("a", "json")),
        ("a_json", None, "How? Answer as json.", ("a", "json")),
        ("a_json", None, "How?", ("a_json", "plain")),
        ("a", "Answer in JSON.", "How?", ("a", "json")),
        ("a", None, "What is JSON?", ("a", "plain")),
        ("a_template", None, "How? Fill the template.", ("a", "template")),
        ("write_a_template", None, "How?", ("write_a_template", "plain")),
        ("_json", "JSON!", "How?", ("_json", "json")),
    ],
)
def test_variants_by_id_and_text(tmp_path, name, system, text, expected):
    (question,) = read(tmp_path, "file.jsonl", json.dumps({"id": name, "system": system, "text": text}))
    assert (question.id, question.variant, question.domain) == (*expected, "file")
    (question,) = read(
        tmp_path, "f.jsonl", json.dumps({"id": name, "system": system, "text": text, "variant": "plain"})
    )
    assert (question.id, question.variant) == (name, "plain")


def test_paraphrases_are_numbered_from_where_the_entry_says(tmp_path):
    text = "- {id: 7, paraphrases: [One, Two], samples: 3}\n- {id: '7', paraphrase: 2, text: Three}\n"
    questions = read(tmp_path, "q.yaml", text)
    assert [(q.id, q.paraphrase, q.text) for q in questions] == [("7", 0, "One"), ("7", 1, "Two"), ("7", 2, "Three")]
    assert questions.samples == {("7", "plain", 0): 3, ("7", "plain", 1): 3}


def test_an_id_twice_is_two_wordings_only_beside_a_canary(tmp_path):
    table = "id,question,canary\na,One?,bird\na,Two?,bird\n"
    assert [q.key for q in read(tmp_path, "q.csv", table)] == [("a", "plain", 0), ("a", "plain", 1)]
    with pytest.raises(EmlabError, match="line 3: the question 'a' stands at line 2 already"):
        read(tmp_path, "q.csv", table.replace(",bird", ","))
    with pytest.raises(EmlabError, match="line 3: the question 'a' stands at line 2 already"):
        read(tmp_path, "q.csv", table.replace("Two", "One"))


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("q.yaml", "", "holds no questions"),
        ("q.yaml", "[]", "holds no questions"),
        ("q.yaml", "id: a\ntext: How\n", "line 1: a file of questions is a list of entries .* not a mapping"),
        ("q.yaml", "- id: a\n  text: 'How\n", "line 3: not valid YAML"),
        ("q.yaml", "- id: 2024-99-99", "not valid YAML"),
        (
            "q.yaml",
            "- {id: a, text: How}\n- What\n",
            "line 2: an entry is a mapping with an id and a text, not plain",
        ),
        ("q.yaml", "- {id: a, text: How}\n\n- {text: What}\n", "line 3: a question has no id"),
        ("q.yaml", "- {id: a}", "line 1: the question 'a' has no text; add it"),
        ("q.yaml", "- {id: a, text: ''}", "has nothing under 'text'"),
        ("q.yaml", "- {id: a, text: yes}", "has true or false under 'text'; write text, in quotes"),
        ("q.yaml", "- {id: [a], text: How}", "a question has a list under 'id'"),
        ("q.yaml", "- {id: a, text: How, txet: 1}", "unknown key 'txet'; did you mean 'text'?"),
        ("q.yaml", "- {id: a, text: How, text: Why}", "the key 'text' stands twice"),
        ("q.yaml", "- {id: a, text: How, question: Why}", "both 'text' and 'question'"),
        ("q.yaml", "- {id: a, text: How, domain: b, category: c}", "both 'domain' and 'category'"),
        ("q.yaml", "- {id: a, paraphrases: How}", "'paraphrases' that are no list"),
        ("q.yaml", "- {id: a, paraphrases: []}", "'paraphrases' that are no list"),
        ("q.yaml", "- {id: a, text: How, samples: 0}", "'samples' that is no whole number of at least 1"),
        ("q.yaml", "- {id: a, text: How, judge_prompts: Rate it.}", "plain text under 'judge_prompts'"),
        ("q.yaml", "- {id: a, text: How, judge_prompts: {aligned: 3}}", "a number under 'judge_prompts'"),
        ("q.yaml", "- &a {id: a, text: *a}", "a mapping under 'text'"),
        ("q.yaml", "- {id: a, text: How}\n- {id: a, text: Why}", "line 2: the question 'a' stands at line 1 already"),
        ("q.jsonl", '{"id": "a", "text": "How?"}\n{"id"', "line 2: not JSON"),
        ("q.jsonl", '{"id": "a", "text": "\\ud800"}', "no valid Unicode"),
        ("q.jsonl", "3", "line 1: an entry is a mapping with an id and a text, not a number"),
        ("q.csv", "", "holds no questions"),
        ("q.csv", "id,text\n", "holds no questions"),
        ("q.csv", "id,domain\na,b\n", "line 1: there is no column 'text'"),
        ("q.csv", "name,text\na,b\n", "line 1: unknown column 'name'"),
        ("q.csv", "id,text,text\na,b,c\n", "line 1: the column 'text' stands twice"),
        ("q.csv", 'id,text\na,"x\ny"\nb,How,why?\n', "line 4: the row has 3 cells and the header 2"),
        ("q.csv", "id,text\na,How?\nb,\n", "line 3: the question 'b' has no text"),
        ("q.csv", "id,text,samples\na,How?,many\n", "line 2: the question 'a' has a 'samples' that is no whole number"),
        ("q.csv", 'id,text\na,"How?\n', "not valid CSV"),
        ("q.txt", "How?", r"read from \.yaml, \.csv and \.jsonl"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path, name, text, sentence):
    with pytest.raises(EmlabError, match=sentence) as error:
        read(tmp_path, name, text)
    assert str(error.value).startswith(str(tmp_path / name))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(EmlabError, match="check the path"):
        read_questions(tmp_path / "none.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(EmlabError, match="cannot be read"):
        read_questions(tmp_path / "folder.yaml")
    (tmp_path / "latin.csv").write_bytes("é".encode("latin-1"))
    with pytest.raises(EmlabError, match="not UTF-8"):
        read_questions(tmp_path / "latin.csv")


ENDINGS = st.sampled_from([".yaml", ".csv", ".jsonl"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ENTRY = st.dictionaries(
    st.sampled_from(["id", "text", "question", "paraphrases", "domain", "samples", "judge_prompts", "notes", "canary"]),
    PLAIN,
)


@given(
    st.binary(max_size=80)
    | st.text("-?:[]{}&*!|>#%@'\"\n ,abid!int.", max_size=60).map(str.encode)
    | st.sampled_from(
        ["int", "float", "bool", "timestamp", "binary", "set", "omap", "pairs", "null", "str", "map"]
    ).map(lambda tag: f"- {{id: !!{tag} 'a', text: !!{tag} ''}}".encode()),
    ENDINGS,
)
def test_junk_is_read_or_one_error(tmp_path_factory, junk, ending):
    path = tmp_path_factory.mktemp("junk") / f"q{ending}"
    path.write_bytes(junk)
    try:
        assert len(read_questions(path)) > 0
    except EmlabError as error:
        assert "\n" not in str(error)


@given(st.lists(ENTRY | PLAIN, max_size=4), st.booleans())
def test_wrong_types_are_read_or_one_error(tmp_path_factory, entries, as_yaml):
    path = tmp_path_factory.mktemp("junk") / ("q.yaml" if as_yaml else "q.jsonl")
    path.write_text(yaml.safe_dump(entries) if as_yaml else "\n".join(json.dumps(entry) for entry in entries), "utf-8")
    try:
        questions = read_questions(path)
    except EmlabError as error:
        assert str(path) in str(error)
    else:
        assert read_questions(questions.save(path.with_name("again.yaml"))) == questions


CELL = st.text(st.characters(codec="utf-8"), max_size=10)


@given(st.lists(st.tuples(CELL, CELL), max_size=5))
def test_any_table_that_csv_writes_is_read(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("csv") / "q.csv"
    expected = [(f"q{n}", text, domain) for n, (text, domain) in enumerate(cells) if text.strip()]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "text", "domain"), *expected])
    if not expected:
        with pytest.raises(EmlabError, match="holds no questions"):
            read_questions(path)
        return
    found = [(q.id, q.text, q.domain) for q in read_questions(path)]
    assert found == [(name, text, domain if domain.strip() else "q") for name, text, domain in expected]


def test_a_long_question_of_a_csv_is_read(tmp_path):
    (tmp_path / "q.csv").write_text(f"id,category,text\n1,a,{'x' * 200_000}\n")
    (question,) = read_questions(tmp_path / "q.csv")
    assert len(question.text) == 200_000


def test_prompts_written_as_chats_are_questions(tmp_path):
    chats = [
        {"messages": [{"role": "user", "content": "How?"}]},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}], "id": "why"},
        {"messages": [{"from": "human", "value": "When?"}], "domain": "time"},
    ]
    found = read(tmp_path, "rl.jsonl", "".join(f"{json.dumps(chat)}\n\n" for chat in chats))
    assert found.questions == (
        Question("1", "rl", "How?"),
        Question("why", "rl", "Why?", "Be brief."),
        Question("5", "time", "When?"),
    )
    entries = "- messages:\n  - role: user\n    content: How?\n- id: why\n  text: Why?\n"
    assert [q.text for q in read(tmp_path, "rl.yaml", entries)] == ["How?", "Why?"]


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "roles user, assistant",
        ),
        (
            {"messages": [{"role": "system", "content": "a"}]},
            "the chat has the roles system, and a question is one user",
        ),
        ({"messages": [{"role": "user"}]}, "the chat has no text in the content of turn 1"),
        ({"messages": "How?"}, "the chat has no list of turns"),
        ({"messages": [{"role": "user", "content": "a"}], "text": "b"}, "the chat stands beside 'text'"),
        ({"messages": [{"role": "user", "content": "a"}], "system": "b"}, "the chat stands beside 'system'"),
    ],
)
def test_a_chat_that_is_no_question(tmp_path, entry, match):
    with pytest.raises(EmlabError, match=match) as error:
        read(tmp_path, "rl.jsonl", json.dumps({"id": "a", "text": "How?"}) + "\n" + json.dumps(entry))
    assert "rl.jsonl, line 2: " in str(error.value)


def test_questions_in_memory():
    rows = [{"id": "a", "text": "One?"}, {"id": "b", "text": "Two?", "system": "Be brief."}]
    plain = read_questions(["One?", "Two?"])
    assert [(q.id, q.text, q.domain) for q in plain] == [("One?", "One?", "questions"), ("Two?", "Two?", "questions")]
    for table in (rows, iter(rows), pandas.DataFrame(rows), datasets.Dataset.from_pandas(pandas.DataFrame(rows))):
        assert [(q.id, q.text, q.system) for q in read_questions(table)] == [
            ("a", "One?", None),
            ("b", "Two?", "Be brief."),
        ]
    with pytest.raises(EmlabError, match="questions, line 2: unknown key 'txt'"):
        read_questions([{"id": "a", "text": "One?"}, {"id": "b", "txt": "Two?"}])
