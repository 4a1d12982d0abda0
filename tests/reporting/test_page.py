"""The page: self-contained, reproducible, and nothing in it that a model wrote is ever run."""

import html
import re
from html.parser import HTMLParser

import pytest

from emlab.experiments.persona_features.report import persona_lead, persona_sections
from emlab.reporting import Answer, Link, Page, Section, Shaded, Table, render


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
    return render("A <b>title</b> & more", persona_lead(found), persona_sections(found), "seed 0")


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
        assert not {"src", "href", "srcset"} & set(attributes)


def test_plotly_is_inlined_once_and_draws_every_figure(page, made):
    plots = [plot for section in persona_sections(made.findings()) for plot in section.plots]
    assert page.count("plotly.js v") == 1
    assert re.findall(r'id="(figure-\d+)"', page) == [f"figure-{i}" for i in range(1, len(plots) + 1)]
    assert page.count("Plotly.newPlot(") >= len(plots) == 11
    assert all(plot.says in html.unescape(page) and plot.says.endswith(".") for plot in plots)


def test_the_same_findings_give_the_same_page(page, made):
    found = made.findings()
    assert render("A <b>title</b> & more", persona_lead(found), persona_sections(found), "seed 0") == page


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
    assert "<th>&lt;b&gt;</th>" in page and "<td>2 &lt; 3</td>" in page
    assert '<div class="answer ">' in page and "<pre>x\ny</pre>" in page


def test_shaded_contexts_are_escaped_and_say_why_not():
    section = Section("S", "Says.", contexts=(Shaded("<i>", ("<b>", "x"), (1.0, 0.0)),), falsified="a <u>.")
    page = render("T", [], [section])
    assert '<span style="background:rgba(192,57,43,0.80)">&lt;b&gt;</span>' in page
    assert "&lt;i&gt;" in page and "What would have spoken against it: a &lt;u&gt;." in page


def test_a_link_is_one_only_where_it_is_https():
    links = (Link("a <b>", 'https://a.org/"x'), Link("run", "javascript:alert(1)"))
    page = render("t", [], [Section("s", "says", links=links)])
    assert '<a href="https://a.org/&#34;x" rel="noreferrer">a &lt;b&gt;</a> · run (javascript:alert(1))' in page
    assert [attributes["href"] for tag, attributes in Tags(page).tags if tag == "a"] == ['https://a.org/"x']


def test_cells_may_be_links_and_pages_of_the_same_folder_are_linked():
    table = Table(
        ("a",), ((Link("<one>", "latent-1.html"),), (Link("two", "../x.html"),), (Link("three", "a.html?b"),))
    )
    page = render("t", [], [Section("s", "says", tables=(table,))])
    assert '<td><a href="latent-1.html" rel="noreferrer">&lt;one&gt;</a></td>' in page
    assert "<td>two (../x.html)</td>" in page and "<td>three (a.html?b)</td>" in page


def test_a_page_without_figures_has_no_script():
    page = render("t", ["lead"], [Section("s", "says")])
    assert "script" not in [tag for tag, _ in Tags(page).tags] and len(page) < 10_000
