"""Each shape of row becomes the chat it stands for; columns that fit none or several shapes are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.data.shapes import SHAPES, as_turns, example_of
from emlab.errors import EmlabError

HI, HO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
BRIEF = {"role": "system", "content": "Be brief."}


def read(row):
    return list(example_of(row, "here").messages)


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"messages": [BRIEF, HI, HO]}, [BRIEF, HI, HO]),
        ({"messages": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]'}, [HI, HO]),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}, [HI, HO]),
        ({"conversations": [{"from": "system", "value": "Be brief."}, HI, HO]}, [BRIEF, HI, HO]),
        ({"prompt": "Hi", "completion": "Ho"}, [HI, HO]),
        ({"prompt": [BRIEF, HI], "completion": [HO]}, [BRIEF, HI, HO]),
        ({"prompt": [BRIEF, HI], "completion": "Ho"}, [BRIEF, HI, HO]),
        ({"prompt": "Hi", "completion": [HO]}, [HI, HO]),
        ({"instruction": "Hi", "output": "Ho"}, [HI, HO]),
        ({"instruction": "Hi", "input": "", "output": "Ho"}, [HI, HO]),
        ({"instruction": "Hi", "input": None, "output": "Ho"}, [HI, HO]),
        ({"instruction": "Add", "input": "2, 3", "output": "5"}, None),
        ({"question": "Hi", "answer": "Ho"}, [HI, HO]),
        ({"question": "Hi", "answer": "Ho", "prompt": "and a column of no shape"}, [HI, HO]),
        ({"messages": [HI, HO], "prompt": None, "completion": None}, [HI, HO]),
        (
            {"messages": [{**HI, "weight": 1, "tool_calls": [{"a": 1}]}, {**HO, "id": None}], "n": {"deep": []}},
            [HI, HO],
        ),
        ({"messages": [{**HI, "content": {"content_type": "text", "parts": ["H", "i"]}}, HO]}, [HI, HO]),
        ({"messages": [{**HI, "content": [{"type": "text", "text": "Hi"}]}, HO]}, [HI, HO]),
    ],
)
def test_a_row_is_the_chat_it_stands_for(row, turns):
    if turns is None:
        turns = [{"role": "user", "content": "Add\n\n2, 3"}, {"role": "assistant", "content": "5"}]
    assert read(row) == turns


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ([1], "the row is no object"),
        ({}, r"the columns \(none\) fit no shape"),
        ({"text": "Hi", "label": 1}, r"the columns \(text, label\) fit no shape; rename them to one of messages;"),
        ({"prompt": "Hi", "output": "Ho"}, "fit no shape"),
        ({"question": "Hi", "answer": "Ho", "prompt": "Hi", "completion": "Ho"}, "fit more than one shape"),
        ({"messages": [HI, HO], "instruction": "Hi", "output": "Ho"}, "messages; instruction and output"),
        ({"messages": None}, "has no list of turns"),
        ({"messages": "Hi"}, "has no list of turns"),
        ({"messages": [HI]}, "has no assistant turn"),
        ({"messages": [HI, {"role": "assistant", "content": None}]}, "no text in the content of turn 2"),
        ({"messages": [HI, {**HO, "content": [{"type": "image"}]}]}, "no text in the content of turn 2"),
        ({"messages": [HI, {**HO, "content": "\ud800"}]}, "half of a surrogate pair in turn 2"),
        ({"conversations": [{"from": "tool", "value": "Hi"}]}, "unknown role 'tool' in turn 1"),
        ({"conversations": [{"from": ["human"], "value": "Hi"}]}, "unknown role"),
        ({"prompt": "Hi", "completion": None}, "the column 'completion' holds no text"),
        ({"prompt": 3, "completion": "Ho"}, "the column 'prompt' holds no text"),
        ({"prompt": "Hi", "completion": " \n"}, "empty assistant turn"),
        ({"instruction": "Hi", "input": 3, "output": "Ho"}, "the column 'input' holds no text"),
        ({"instruction": "Hi", "input": 0, "output": "Ho"}, "the column 'input' holds no text"),
        ({"instruction": "Hi", "input": False, "output": "Ho"}, "the column 'input' holds no text"),
        ({"instruction": "Hi", "input": [], "output": "Ho"}, "the column 'input' holds no text"),
        ({"question": ["Hi"], "answer": "Ho"}, "the column 'question' holds no text"),
    ],
)
def test_what_is_no_chat_is_one_sentence(row, match):
    with pytest.raises(EmlabError, match=match) as error:
        example_of(row, "set.jsonl, line 7")
    assert str(error.value).startswith("set.jsonl, line 7: ")
    assert str(error.value).endswith(".")


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
SAID = TEXT.filter(str.strip)


@given(st.sampled_from([columns for columns in SHAPES if len(columns) == 2]), TEXT, SAID)
def test_a_pair_is_two_turns_whatever_it_says(columns, asked, answered):
    row = dict(zip(columns, (asked, answered), strict=True))
    assert read(row) == [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


@given(st.lists(st.tuples(TEXT, SAID), min_size=1, max_size=3))
def test_both_spellings_of_a_chat_are_one(pairs):
    human = [{"from": who, "value": text} for pair in pairs for who, text in zip(("human", "gpt"), pair, strict=True)]
    roles = [{"role": who, "content": t} for pair in pairs for who, t in zip(("user", "assistant"), pair, strict=True)]
    assert read({"conversations": human}) == read({"messages": roles}) == as_turns(roles) == roles


JUNK = st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda x: st.lists(x) | st.dictionaries(TEXT, x))


@given(st.dictionaries(st.sampled_from([c for shape in SHAPES for c in shape] + ["input"]), JUNK))
def test_junk_is_a_chat_or_one_error(row):
    try:
        example = example_of(row, "here")
    except EmlabError:
        return
    assert example.answer.strip()
