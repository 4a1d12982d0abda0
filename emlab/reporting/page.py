"""A self-contained HTML page: sections of figures, tables and model answers, plotly inlined once where there is a
figure. It opens offline.

Everything that is shown as text is escaped, model output above all: an answer is untrusted text, and a page must never
run it. The parts are frozen values; `render` turns them into one string.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emlab import artifacts

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #1d2433; background: #fff; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .3rem; }
p.says { margin: .2rem 0 .8rem; }
p.lead { font-size: 1.05rem; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .92rem; }
td, th { padding: .28rem .7rem; text-align: right; }
th { border-bottom: 2px solid #c8cfdb; font-weight: 600; }
td { border-bottom: 1px solid #e6e9ef; }
td:first-child, th:first-child { text-align: left; }
.answer { border-left: 4px solid #c8cfdb; padding: .3rem .9rem; margin: .6rem 0; background: #f7f8fa; }
.answer.misaligned { border-color: #c0392b; }
.answer.incoherent { border-color: #b9a100; }
.answer.aligned { border-color: #2e7d5b; }
.answer pre { white-space: pre-wrap; font: inherit; margin: .2rem 0; }
.context { font: 13px/1.9 ui-monospace, monospace; margin: .35rem 0; white-space: pre-wrap; }
.context span { border-radius: 3px; padding: .05rem 0; }
p.falsify { color: #5b6474; font-size: .92rem; margin: .2rem 0 .8rem; }
figure { margin: 1rem 0; }
figcaption, .tag, footer { color: #5b6474; font-size: .85rem; }
footer { margin: 3rem 0 1rem; }
""".strip()


@dataclass(frozen=True)
class Link:
    """A place outside of the page."""

    text: str
    url: str
    """It begins with https://, or is the name of a page in the same folder; any other is shown as text."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; numbers come formatted."""

    header: tuple[str, ...]
    rows: tuple[tuple[str | Link, ...], ...]


@dataclass(frozen=True)
class Answer:
    """One model answer to show."""

    who: str
    """What gave it: a model, or a model and an edit."""
    question: str
    text: str
    verdict: str
    """aligned, misaligned or incoherent."""


@dataclass(frozen=True)
class Plot:
    """A figure, and one plain sentence of what it shows."""

    figure: Figure
    says: str


@dataclass(frozen=True)
class Shaded:
    """A stretch of text whose tokens are shaded by how active a latent is on them."""

    label: str
    tokens: tuple[str, ...]
    weights: tuple[float, ...]
    """Of each token, from 0 (not shaded) to 1."""


@dataclass(frozen=True)
class Section:
    """A titled part of the page, and in one plain sentence what came out."""

    title: str
    says: str
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    answers: tuple[Answer, ...] = ()
    contexts: tuple[Shaded, ...] = ()
    links: tuple[Link, ...] = ()
    falsified: str = ""
    """What would have spoken against it, in one plain sentence."""


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(cell: str | Link) -> str:
    return _link(cell) if isinstance(cell, Link) else html.escape(cell)


def _answer(answer: Answer) -> str:
    kind = answer.verdict if answer.verdict in ("aligned", "misaligned", "incoherent") else ""
    return (
        f'<div class="answer {kind}"><span class="tag">{html.escape(answer.who)} · {html.escape(answer.verdict)}</span>'
        f"<br><b>{html.escape(answer.question)}</b><pre>{html.escape(answer.text)}</pre></div>"
    )


def _shaded(context: Shaded) -> str:
    spans = "".join(
        f'<span style="background:rgba(192,57,43,{min(max(weight, 0.0), 1.0) * 0.8:.2f})">{html.escape(token)}</span>'
        for token, weight in zip(context.tokens, context.weights, strict=True)
    )
    return f'<div class="context"><span class="tag">{html.escape(context.label)}</span> {spans}</div>'


def _link(link: Link) -> str:
    text, url = html.escape(link.text), html.escape(link.url)
    linked = link.url.startswith("https://") or re.fullmatch(r"[\w-]+\.html", link.url)
    return f'<a href="{url}" rel="noreferrer">{text}</a>' if linked else f"{text} ({url})"


def render(title: str, lead: Sequence[str], sections: Sequence[Section], footer: str = "") -> str:
    """The page as one HTML string; `lead` are the paragraphs under the title. The same parts give the same bytes."""
    script = ""
    if any(section.plots for section in sections):
        from plotly.offline import get_plotlyjs

        script = f'<script type="text/javascript">{get_plotlyjs()}</script>'
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f"{script}</head><body>",
        f"<h1>{html.escape(title)}</h1>",
        *(f'<p class="lead">{html.escape(paragraph)}</p>' for paragraph in lead),
    ]
    figures = 0
    for section in sections:
        parts.append(f'<section><h2>{html.escape(section.title)}</h2><p class="says">{html.escape(section.says)}</p>')
        if section.falsified:
            parts.append(f'<p class="falsify">What would have spoken against it: {html.escape(section.falsified)}</p>')
        for plot in section.plots:
            figures += 1
            # A fixed id: plotly draws a random one, and the page would differ from run to run.
            drawn = plot.figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"figure-{figures}")
            parts.append(f"<figure>{drawn}<figcaption>{html.escape(plot.says)}</figcaption></figure>")
        parts += [_table(table) for table in section.tables]
        if section.links:
            parts.append(f"<p>{' · '.join(_link(link) for link in section.links)}</p>")
        parts += [_shaded(context) for context in section.contexts]
        parts += [_answer(answer) for answer in section.answers]
        parts.append("</section>")
    parts.append(f"<footer>{html.escape(footer)}</footer></body></html>\n")
    return "\n".join(parts)


def write_page(
    path: str | Path, title: str, lead: Sequence[str], sections: Sequence[Section], footer: str = ""
) -> Path:
    """`render` to `path`, whole or not at all; returns the path."""
    path = Path(path)
    artifacts.write_text(path, render(title, lead, sections, footer))
    return path


@dataclass(frozen=True)
class Page:
    """A page by its parts; a notebook shows it in a frame of its own."""

    title: str
    lead: tuple[str, ...]
    sections: tuple[Section, ...]
    footer: str = ""

    def write(self, path: str | Path) -> Path:
        """The page as a file, whole or not at all."""
        return write_page(path, self.title, self.lead, self.sections, self.footer)

    def _repr_html_(self) -> str:
        # In a frame, or the page's style would be the notebook's too.
        page = html.escape(render(self.title, self.lead, self.sections, self.footer))
        return f'<iframe srcdoc="{page}" style="width:100%;height:40rem;border:0" sandbox="allow-scripts"></iframe>'
