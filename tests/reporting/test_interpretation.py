"""Pages about latents: all that was found is on them, nothing on them runs, and a notebook shows them in a frame."""

import html
import math
from html.parser import HTMLParser

import pytest

from emlab.discovery import (
    Activity,
    Context,
    Interpretation,
    InterpretedLatent,
    LatentName,
    LatentWeights,
    NameScore,
    Neighbour,
    Quantile,
    TokenEffect,
)
from emlab.discovery.name_scores import Answer, accuracy
from emlab.errors import EmlabError
from emlab.evaluation import wilson
from emlab.reporting import interpretation_page, interpretation_pages, latent_page, render
from emlab.saes.token_rows import Counts
from emlab.sites import Site

HOSTILE = '<script>alert("pwned")</script><img src=x onerror=1>'
RIGHT = accuracy([Answer(True, True), Answer(False, False)] * 8)
CHANCE = accuracy(
    [Answer(right, said) for right in (True, False) for said in (True, False)] + [Answer(False, None, HOSTILE)]
)


def activity(column="", value="", mean=0.5, documents=4, active=20):
    return Activity(column, value, documents, 400, active, wilson(3, 4), mean, 0.01 if documents > 1 else math.nan, 8.0)


def latent_of(number, **given):
    contexts = tuple(Context(("kill", HOSTILE, " x"), (8.0, 2.0, 0.0), f"malicious {HOSTILE}", i) for i in range(2))
    weights = LatentWeights(
        (TokenEffect(HOSTILE, 1.5), TokenEffect(" ruin", 1.25)),
        (TokenEffect("\n", -2.0), TokenEffect(" calm", -1.0)),
        (Neighbour(17, 0.5), Neighbour(3, 0.25)),
        (Neighbour(4, -0.5), Neighbour(5, -0.25)),
    )
    whole = {
        "activity": (activity(), activity("persona", HOSTILE, 0.9), activity("persona", "helpful", 0.1, documents=1)),
        "top": contexts,
        "quantiles": (Quantile(0.0, 0.5, contexts[:1]), Quantile(0.5, 1.0, contexts[1:])),
        "weights": weights,
        "name": LatentName(number, f"cruelty {HOSTILE}"),
        "scores": (
            NameScore(number, "detection", RIGHT, CHANCE, (3, 4), (wilson(1, 4), wilson(0, 0), *[wilson(2, 2)] * 3)),
            NameScore(number, "fuzzing", CHANCE, CHANCE, ()),
        ),
    }
    return InterpretedLatent(number, **{**whole, **given})


SILENT = latent_of(
    9,
    activity=(activity(mean=0.0, active=0),),
    top=(),
    quantiles=(),
    name=LatentName(9, "", "it never fires"),
    scores=(),
)


@pytest.fixture
def found():
    counts = Counts(4, 420, 400, first=4, special=16)
    return Interpretation(
        "m <b>", Site("resid_post", 0), f"chats {HOSTILE}", counts, 3, (latent_of(89), SILENT), "gpt <i>"
    )


def page_of(page):
    return render(page.title, page.lead, page.sections, page.footer)


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_every_text_is_escaped_and_nothing_runs_or_is_fetched(found):
    for page in (*interpretation_pages(found).values(), interpretation_page(found)):
        text = page_of(page)
        assert HOSTILE not in text and HOSTILE in html.unescape(text) and len(text) < 60_000
        for tag, attributes in Tags(text).tags:
            assert tag not in ("script", "img", "link", "iframe", "object", "embed")
            assert "src" not in attributes and not [name for name in attributes if name.startswith("on")]
            assert attributes.get("href", "latent-1.html").startswith(("latent-", "#", "data:text/csv;base64,"))


def test_the_index_links_to_every_page(found):
    pages = interpretation_pages(found)
    assert list(pages) == ["index.html", "latent-89.html", "latent-9.html"]
    index = page_of(pages["index.html"])
    assert '<a href="latent-89.html" rel="noreferrer">89</a>' in index and "latent-9.html" in index
    assert "<td>5.00%</td>" in index and "1.00 [" in index and "Names are by gpt &lt;i&gt;" in index


def test_a_page_tells_activity_contexts_weights_and_tests(found):
    text = page_of(latent_page(found, 89))
    assert "Named: cruelty &lt;script&gt;" in text and "m &lt;b&gt; read chats" in text
    for said in (
        "<td>persona helpful</td><td>1</td>",
        "From 50% to 100% of its distribution",
        "<td>&#39; ruin&#39;</td><td>+1.250</td><td>&#39; calm&#39;</td><td>-1.000</td>",
        "<td>17</td><td>+0.500</td><td>4</td><td>-0.500</td>",
        "<td>detection, its own excerpts</td><td>1.00 [",
        "<td>detection, excerpts of latents 3, 4</td><td>0.50 [",
        "<td>fuzzing, excerpts of latents none</td>",
        "<td>detection</td><td>25% of 4</td><td>–</td><td>100% of 2</td>",
        "logit lens, nostalgebraist 2020",
    ):
        assert said in text, said
    assert text.index("From 50% to 100%") < text.index("From 0% to 50%"), "the strongest part stands first"
    # The peak is as red as can be, a quarter of it a quarter as red.
    assert 'rgba(192,57,43,0.80)">kill<' in text and f'rgba(192,57,43,0.20)">{HOSTILE}<' in html.unescape(text)


def test_a_latent_that_never_fires_has_a_page_that_says_so(found):
    text = page_of(latent_page(found, 9))
    assert "never active on the 400 tokens" in text and "It has no name: it never fires." in text and "ruin" in text
    with pytest.raises(EmlabError, match="latent 7 is not among"):
        latent_page(found, 7)


def test_a_notebook_shows_a_frame_with_the_whole_page(found):
    page = latent_page(found, 89)
    ((tag, attributes),) = Tags(page._repr_html_()).tags
    assert tag == "iframe" and attributes["srcdoc"] == page_of(page)
    whole = page_of(interpretation_page(found))
    assert "Latent 89: Strongest activations" in whole and "Latent 9: Weights" in whole


def test_it_is_written_whole_and_the_same_each_time(found, tmp_path):
    page = latent_page(found, 89)
    assert (
        page.write(tmp_path / "p.html").read_text(encoding="utf-8") == page_of(page) == page_of(latent_page(found, 89))
    )
