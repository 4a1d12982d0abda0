"""Texts that others wrote, through everything that shows them: nothing runs, nothing breaks, nothing is hidden."""

import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from emlab import cli
from emlab.data import Dataset, Question
from emlab.errors import EmlabError, visible
from emlab.evaluation import Judged, Rollouts, load_judged, save_judged, score_judged
from emlab.reporting import Page
from emlab.reporting.evaluation import evaluation_lead, evaluation_sections
from emlab.verbs.run_folders import report_runs

HOSTILE = {
    "markup": '</pre></select></script><script>alert("x")</script><img src=x onerror=alert(1)>',
    "template": "{{ 7 * 7 }} {% for x in y %} ${7*7}",
    "attribute": '" onmouseover="alert(1)" x="',
    "escapes": "\x1b[2J\x1b]0;title\x07\x1b[31mred\x08\x08\x9b",
    "direction": "abc\u202e\u2066gnp.exe\u2069",
    "surrogate": "half \ud800 a pair",
    "nothing": "\x00\x01",
    "long": "x" * 1_000_000,
    "formula": "=HYPERLINK('http://x')",
}


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]


def scored(text, n=14):
    questions = tuple(Question(f"{text[:40]}{i}", text[:40] or "d", text) for i in range(n))
    rollouts = Rollouts(questions, (text,) * n, text[:40], 0, 1.0)
    return score_judged(Judged(rollouts, np.zeros(n), np.full(n, 100.0), judge=text[:40]))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_report_shows_it_and_runs_nothing(text, tmp_path):
    found = scored(text)
    file = Page(text, evaluation_lead(found), evaluation_sections(found), text).write(tmp_path / "report.html")
    page = file.read_text(encoding="utf-8")
    seen = Tags(page)
    assert not {"img", "iframe", "object", "embed"} & set(seen.tags)
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert page.count("<script") == seen.tags.count("script") <= 1
    if text != HOSTILE["surrogate"]:  # which no file in UTF-8 holds
        assert (
            f'<pre dir="auto">{html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")}</pre>' in page
        )


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_notebook_shows_it_and_runs_nothing(text):
    found = scored(text)
    for shown in (found, found.judged.rollouts):
        assert set(Tags(shown._repr_html_()).tags) <= {"pre"}
        assert len(repr(shown)) < 400
    found.to_pandas()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_it_is_written_and_read_back_as_it_was(text, tmp_path):
    (again,) = load_judged(save_judged([scored(text, 1).judged], tmp_path / "judged.jsonl"))
    assert again.rollouts.answers == (text,)
    chats = [[{"role": "user", "content": text}, {"role": "assistant", "content": text}]]
    if text == HOSTILE["surrogate"]:
        with pytest.raises(EmlabError, match="half of a surrogate pair in turn 1"):
            Dataset.of(chats, "mine")
        return
    Dataset.of(chats, "mine").save(tmp_path / "set")
    assert Dataset.load(tmp_path / "set").examples[0].answer == text


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_terminal_is_given_nothing_that_moves_it(text):
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", visible(text))
    visible(text).encode()  # can be printed


def test_what_is_visible_is_left_as_it_is():
    assert visible("Größe – 日本\n\tok") == "Größe – 日本\n\tok"
    assert visible("\x1b[2Jx") == "\\x1b[2Jx"


def test_an_error_names_a_file_without_obeying_it(tmp_path, capsys):
    assert cli.main(["score", str(tmp_path / "\x1b[2Jjudged.jsonl")]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_runs_side_by_side(tmp_path):
    for name in ("a-1", "b-1"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"key": "k", "finished": True}))
        (folder / "config.yaml").write_text(json.dumps({"pipeline": HOSTILE["markup"], "title": name}))
        rate = {"rate": 0.5, "low": 0.1, "high": 0.9, "n": 2}
        (folder / "summary.json").write_text(
            json.dumps({"findings": [HOSTILE["markup"]], "misaligned": {HOSTILE["attribute"]: rate}})
        )
    found = report_runs([tmp_path / "a-1", tmp_path / "b-1"], compare=True, out=tmp_path / "page.html")
    seen = Tags((tmp_path / "page.html").read_text())
    assert "script" not in seen.tags and "onmouseover" not in seen.attributes
    assert set(Tags(found._repr_html_()).tags) == {"pre"}
