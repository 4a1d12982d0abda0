"""The page: self-contained, reproducible, and nothing in it that a model wrote is ever run."""

import base64
import html
import re
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest

from emlab.experiments.persona_features.report import (
    persona_lead,
    persona_picture,
    persona_sections,
    persona_tiles,
)
from emlab.reporting import Answer, Link, Page, Plot, Section, Shaded, Table, render
from emlab.reporting.terms import TERMS, Explained, used


class Tags(HTMLParser):
    """Notes every tag outside of scripts, with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


@pytest.fixture
def page(made):
    found = made.findings()
    first = {"tiles": persona_tiles(found), "picture": persona_picture(found)}
    return render("A <b>title</b> & more", persona_lead(found), persona_sections(found), "seed 0", **first)


def test_model_text_is_escaped(page, made):
    tags = Tags(page).tags
    assert made.hostile not in page
    assert "&lt;script&gt;alert(&#34;pwned&#34;)" in page
    assert not [tag for tag, _ in tags if tag == "img"]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert "<h1>A &lt;b&gt;title&lt;/b&gt; &amp; more</h1>" in page


def test_nothing_is_fetched(page):
    for tag, attributes in Tags(page).tags:
        assert tag not in ("link", "iframe", "img", "object", "embed")
        assert not {"src", "srcset"} & set(attributes)
        assert attributes.get("href", "#").startswith(("#", "data:text/csv;base64,"))


def test_plotly_is_inlined_once_and_draws_every_figure(page, made):
    found = made.findings()
    plots = [persona_picture(found), *(plot for section in persona_sections(found) for plot in section.plots)]
    assert page.count("plotly.js v") == 1
    assert re.findall(r'id="(figure-\d+)"', page) == [f"figure-{i}" for i in range(1, len(plots) + 1)]
    assert page.count("Plotly.newPlot(") >= len(plots) == 12
    assert all(plot.says in html.unescape(page) and plot.says.endswith(".") for plot in plots)


def test_the_same_findings_give_the_same_page(page, made):
    found = made.findings()
    first = (persona_tiles(found), persona_picture(found))
    assert render("A <b>title</b> & more", persona_lead(found), persona_sections(found), "seed 0", *first) == page


def test_labels_of_figures_are_escaped_too(made):
    found = made.findings(scores=(made.score("aligned"), made.score("insecure", 6), made.score("<a href=//x>s</a>")))
    from emlab.reporting.figures import rates_figure

    assert "&lt;a href=//x&gt;s&lt;/a&gt;" in rates_figure(found.scores).data[0].x
    assert "<a href=//x>" not in render("t", [], persona_sections(found))


def test_tables_and_answers(tmp_path):
    section = Section(
        "S", "Says.", tables=(Table(("a", "<b>"), (("1", "2 < 3"),)),), answers=(Answer("w", "q", "x\ny", "odd"),)
    )
    page = Page("T", ["lead"], [section]).write(tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert '<th scope="col">&lt;b&gt;</th>' in page and "<td>2 &lt; 3</td>" in page
    assert '<div class="answer " data-who="w"' in page and '<pre dir="auto">x\ny</pre>' in page


def test_shaded_contexts_are_escaped_and_say_why_not():
    section = Section("S", "Says.", contexts=(Shaded("<i>", ("<b>", "x"), (1.0, 0.0)),), falsified="a <u>.")
    page = render("T", [], [section])
    assert '<span title="1.00" style="background:rgba(192,57,43,0.80)">&lt;b&gt;</span>' in page
    assert "&lt;i&gt;" in page and "What would have spoken against it: a &lt;u&gt;." in page


def test_a_link_is_one_only_where_it_is_https():
    links = (Link("a <b>", 'https://a.org/"x'), Link("run", "javascript:alert(1)"))
    page = render("t", [], [Section("s", "says", links=links)])
    assert '<a href="https://a.org/&#34;x" rel="noreferrer">a &lt;b&gt;</a> · run (javascript:alert(1))' in page
    assert [
        attributes["href"] for tag, attributes in Tags(page).tags if tag == "a" and "download" not in attributes
    ] == ['https://a.org/"x']


def test_cells_may_be_links_and_pages_of_the_same_folder_are_linked():
    table = Table(
        ("a",), ((Link("<one>", "latent-1.html"),), (Link("two", "../x.html"),), (Link("three", "a.html?b"),))
    )
    page = render("t", [], [Section("s", "says", tables=(table,))])
    assert '><a href="latent-1.html" rel="noreferrer">&lt;one&gt;</a></td>' in page
    assert ">two (../x.html)</td>" in page and ">three (a.html?b)</td>" in page


def test_a_page_without_figures_has_no_script():
    page = render("t", ["lead"], [Section("s", "says")])
    assert "script" not in [tag for tag, _ in Tags(page).tags] and len(page) < 10_000


def read(url):
    return base64.b64decode(url.removeprefix("data:text/csv;base64,")).decode()


def test_the_data_of_a_table_and_of_a_figure(made):
    table = Table(("a", "b"), (("+1", "=x"), ("-2", "+x")), (("2", Link("one", "https://a.org")),), "other rows")
    assert read(table.csv) == "a,b\n+1,'=x\n-2,'+x\n2,one\n"
    assert table.numeric == (1,)
    page = render("t", [], [Section("s", "says", tables=(table,))])
    assert "<summary>1 other rows</summary>" in page and table.csv in page
    rows = read(persona_picture(made.findings()).csv).splitlines()
    assert rows[0] == "trace,x,y,z" and '"latent 2, misaligned, of coherent answers",0.5,0.7,' in rows


def test_every_answer_is_there_and_can_be_filtered(page, made):
    found = made.findings()
    shown = [attributes for tag, attributes in Tags(page).tags if "data-verdict" in attributes]
    arms = [screen.tested(found.persona.name).score for screen in (found.persona.plus, found.persona.minus)]
    assert len(shown) == sum(score.total for score in (*found.scores, *arms))
    chosen = [attributes["data-by"] for tag, attributes in Tags(page).tags if tag == "select"]
    assert chosen == ["who", "verdict", "question"]


def test_terms_are_told_where_they_stand_and_once_at_the_end():
    explained = Explained()
    text = explained("misaligned <b> misaligned")
    assert text == f'<abbr title="{TERMS["misaligned"]}">misaligned</abbr> &lt;b&gt; misaligned'
    assert explained("misaligned") == "misaligned"
    assert list(used(["AUROC of a latent shift", "AUROC"])) == ["AUROC", "latent shift"]
    page = render("t", ["The AUROC is high."], [Section("s", "says")])
    assert f"<dt>AUROC</dt><dd>{TERMS['AUROC']}</dd>" in page and "<dt>latent</dt>" not in page


def test_the_first_screen(page, made):
    head = page[page.index("<main>") : page.index('<section id="verdict">')]
    assert head.count('class="tile"') == 5 and "10.0% to" not in head
    assert 'id="figure-1"' in head


def test_long_tables_can_be_searched():
    rows = tuple((str(i), f"row {i}") for i in range(13))
    long, short = (render("t", [], [Section("s", "says", tables=(Table(("a", "b"), rows[:n]),))]) for n in (13, 12))
    assert '<input type="search" class="find">' in long and "<script>" in long
    assert "<input" not in short and "<script>" not in short


def test_the_data_of_figures_of_arrays_and_grids():
    line = go.Scatter(x=np.array([1.0, 2.0]), y=np.array([3.0, 4.0]), name="a")
    grid = go.Heatmap(x=["p", "q"], y=["r"], z=[[0.5, None]])
    polar = go.Scatterpolar(theta=["p", "q"], r=[1, 2])
    rows = read(Plot(go.Figure([line, grid, polar]), "Says.").csv).splitlines()
    assert rows == ["trace,x,y,z", "a,1.0,3.0,", "a,2.0,4.0,", ",p,r,0.5", ",q,r,", ",p,1,", ",q,2,"]
