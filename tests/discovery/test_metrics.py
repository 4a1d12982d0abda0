"""Contrasts from files, and how many arguments a metric takes."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emlab.discovery import Contrast, read_contrasts
from emlab.discovery.metrics import Cases
from emlab.errors import EmlabError

text = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip)


@settings(max_examples=40)
@given(st.lists(st.tuples(text, text, text), min_size=1, max_size=4), st.booleans())
def test_what_is_written_is_read(tmp_path_factory, rows, blank):
    path = tmp_path_factory.mktemp("contrasts") / "c.jsonl"
    lines = [json.dumps(dict(zip(("prompt", "misaligned", "aligned"), row, strict=True))) for row in rows]
    path.write_text(("\n\n" if blank else "\n").join(lines), encoding="utf-8")
    assert read_contrasts(path) == [Contrast(*row) for row in rows]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not valid JSON"),
        ("[]", "line 2: 'misaligned' is missing"),
        ('{"prompt": "a", "misaligned": "b"}', "line 2: 'aligned' is missing"),
        ('{"prompt": [], "misaligned": "b", "aligned": "c"}', "line 2: 'prompt' is missing"),
        ('{"prompt": [{"role": "user"}], "misaligned": "b", "aligned": "c"}', "line 2: 'prompt' is missing"),
        ('{"prompt": "a", "misaligned": " ", "aligned": "c"}', "line 2: 'misaligned' is missing or empty"),
    ],
)
def test_the_first_wrong_line_is_named(tmp_path, line, said):
    path = tmp_path / "c.jsonl"
    path.write_text('{"prompt": "a", "misaligned": "b", "aligned": "c"}\n' + line)
    with pytest.raises(EmlabError, match=said):
        read_contrasts(path)


def test_a_file_that_is_not_there_or_empty(tmp_path):
    with pytest.raises(EmlabError, match="cannot be read"):
        read_contrasts(tmp_path / "none.jsonl")
    (tmp_path / "c.jsonl").write_text("\n")
    with pytest.raises(EmlabError, match="holds no contrasts"):
        read_contrasts(tmp_path / "c.jsonl")


def test_cases_are_named_by_what_is_asked_last(tiny):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    cases = Cases.of(tiny, ["Hello", chat, [5, 6, 7]])
    assert (cases.names, cases.per_case) == (("Hello", "Hi", "3 token ids"), 1) and cases.rows[2] == [5, 6, 7]
    assert cases.batch(tiny, [2, 0]).ids.tolist()[0][-3:] == [5, 6, 7]


def test_a_contrast_is_two_rows_that_share_the_prompt(tiny):
    cases = Cases.of(tiny, [Contrast("Hello", "No", "Yes!")])
    prompt = tiny.prompt_ids("Hello")
    assert (len(cases), cases.per_case, cases.starts) == (1, 2, (len(prompt), len(prompt)))
    assert [tiny.tokenizer.decode(row[len(prompt) :]) for row in cases.rows] == ["No", "Yes!"]
    with pytest.raises(EmlabError, match="An answer to 'Hello' is empty"):
        Cases.of(tiny, [Contrast("Hello", "No", "")])
