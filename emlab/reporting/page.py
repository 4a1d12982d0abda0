"""A self-contained HTML page: sections of figures, tables and model answers, plotly inlined once where there is a
figure. It opens offline.

Everything that is shown as text is escaped, model output above all: an answer is untrusted text, and a page must never
run it. The parts are frozen values; `render` turns them into one string by the template page.html.jinja.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emlab import artifacts

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Link:
    """A place outside of the page."""

    text: str
    url: str
    """It begins with https://, or is the name of a page in the same folder; any other is shown as text."""

    @property
    def safe(self) -> bool:
        """Whether it may be followed."""
        return self.url.startswith("https://") or bool(re.fullmatch(r"[\w-]+\.html", self.url))


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; numbers come formatted."""

    header: tuple[str, ...]
    rows: tuple[tuple[str | Link, ...], ...]

    def text(self) -> str:
        """For a terminal: columns side by side."""
        rows = [[cell.text if isinstance(cell, Link) else cell for cell in row] for row in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
        return "\n".join("  ".join(row).rstrip() for row in padded)


@dataclass(frozen=True)
class Answer:
    """One model answer to show."""

    who: str
    """What gave it: a model, or a model and an edit."""
    question: str
    text: str
    verdict: str
    """aligned, misaligned or incoherent."""

    @property
    def kind(self) -> str:
        """The verdict where it is one of these three, which the page has colours for."""
        return self.verdict if self.verdict in ("aligned", "misaligned", "incoherent") else ""


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

    @property
    def shades(self) -> Iterator[tuple[str, str]]:
        """Each token, and how dark it is."""
        for token, weight in zip(self.tokens, self.weights, strict=True):
            yield token, f"{min(max(weight, 0.0), 1.0) * 0.8:.2f}"


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


def render(title: str, lead: Sequence[str], sections: Sequence[Section], footer: str = "") -> str:
    """The page as one HTML string. The same parts give the same bytes.

    Args:
        title: Of the page.
        lead: The paragraphs under the title.
        sections: In their order.
        footer: The small line at the end.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    script, number = "", itertools.count(1)
    if any(section.plots for section in sections):
        from plotly.offline import get_plotlyjs

        script = get_plotlyjs()

    def draw(plot: Plot) -> str:
        # A fixed id: plotly draws a random one, and the page would differ from run to run.
        drawn: str = plot.figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"figure-{next(number)}")
        return drawn

    templates = Environment(
        loader=PackageLoader("emlab", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    page = Page(title, lead, sections, footer)
    return templates.get_template("page.html.jinja").render(page=page, draw=draw, plotly=script)


@dataclass(frozen=True)
class Page:
    """A page by its parts; a notebook shows it in a frame of its own."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    footer: str = ""

    def write(self, path: str | Path) -> Path:
        """The page as a file, whole or not at all; missing folders are made."""
        path = Path(path)
        artifacts.write_text(path, render(self.title, self.lead, self.sections, self.footer))
        return path

    def _repr_html_(self) -> str:
        # In a frame, or the page's style would be the notebook's too.
        page = html.escape(render(self.title, self.lead, self.sections, self.footer))
        return f'<iframe srcdoc="{page}" style="width:100%;height:40rem;border:0" sandbox="allow-scripts"></iframe>'
