"""A self-contained HTML page: sections of figures, tables and model answers, plotly inlined once where there is a
figure. It opens offline.

Everything that is shown as text is escaped, model output above all: an answer is untrusted text, and a page must never
run it. The parts are frozen values; `render` turns them into one string by the template page.html.jinja.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emlab import artifacts
from emlab.reporting.terms import Explained, used

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


LONG = 12
"""Rows of a table, or answers, beyond which they can be searched."""


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
    more: tuple[tuple[str | Link, ...], ...] = ()
    """Rows that are folded away, such as those of random directions."""
    what_more: str = "more rows"
    """What they are."""

    @property
    def numeric(self) -> tuple[int, ...]:
        """The columns, counted from 1, in which every cell begins with a number or is a dash: they are on the right."""
        rows = [*self.rows, *self.more]
        columns = ([row[i] for row in rows if i < len(row)] for i in range(len(self.header)))
        return tuple(i for i, column in enumerate(columns, start=1) if all(map(_is_figure, column)))

    @property
    def csv(self) -> str:
        """All rows as a data URL of comma-separated values."""
        return _csv([self.header, *self.rows, *self.more])

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

    @property
    def csv(self) -> str:
        """The points of every trace as a data URL of comma-separated values: trace, x, y, z."""
        rows: list[tuple[Any, ...]] = [("trace", "x", "y", "z")]
        for trace in self.figure.data:
            polar = trace.type == "scatterpolar"
            x, y = _values(trace, "theta" if polar else "x"), _values(trace, "r" if polar else "y")
            if grid := _values(trace, "z"):
                cells = [(a, b, z) for b, row in zip(y, grid, strict=True) for a, z in zip(x, row, strict=True)]
            else:
                cells = [(a, b, "") for a, b in zip(x, y, strict=True)]
            rows += [(trace.name or "", *cell) for cell in cells]
        return _csv(rows)


@dataclass(frozen=True)
class Tile:
    """One figure that matters, at the head of a page."""

    label: str
    value: str
    beside: str = ""
    """Its interval, or what it stands beside."""


@dataclass(frozen=True)
class Shaded:
    """A stretch of text whose tokens are shaded by how active a latent is on them."""

    label: str
    tokens: tuple[str, ...]
    weights: tuple[float, ...]
    """Of each token, from 0 (not shaded) to 1."""

    @property
    def shades(self) -> Iterator[tuple[str, str, str]]:
        """Each token, how dark it is, and its weight."""
        for token, weight in zip(self.tokens, self.weights, strict=True):
            yield token, f"{min(max(weight, 0.0), 1.0) * 0.8:.2f}", f"{weight:.2f}"


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

    @property
    def anchor(self) -> str:
        """What its place on the page is called."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"

    @property
    def texts(self) -> tuple[str, ...]:
        """What it says in words of its own."""
        tables = (cell for table in self.tables for cell in table.header)
        return (self.says, self.falsified, *(plot.says for plot in self.plots), *tables)


def render(
    title: str,
    lead: Sequence[str],
    sections: Sequence[Section],
    footer: str = "",
    tiles: Sequence[Tile] = (),
    picture: Plot | None = None,
) -> str:
    """The page as one HTML string. The same parts give the same bytes.

    Args:
        title: Of the page.
        lead: The paragraphs under the title.
        sections: In their order; each folds.
        footer: The small line at the end.
        tiles: The figures that matter most, on the first screen.
        picture: The one figure that stands there.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    script, number = "", itertools.count(1)
    if picture is not None or any(section.plots for section in sections):
        from plotly.offline import get_plotlyjs

        script = get_plotlyjs()

    def draw(plot: Plot) -> str:
        # A fixed id: plotly draws a random one, and the page would differ from run to run.
        how = {"full_html": False, "include_plotlyjs": False, "config": {"responsive": True, "displaylogo": False}}
        drawn: str = plot.figure.to_html(div_id=f"figure-{next(number)}", **how)
        return drawn

    templates = Environment(
        loader=PackageLoader("emlab", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["explained"] = Explained()
    page = Page(title, lead, sections, footer, tiles, picture)
    known = used([*lead, *(text for section in sections for text in section.texts)])
    asks = any(len(part) > LONG for s in sections for part in (s.answers, *(table.rows for table in s.tables)))
    parts = {"page": page, "draw": draw, "plotly": script, "terms": known, "long": LONG, "asks": asks}
    return templates.get_template("page.html.jinja").render(**parts)


@dataclass(frozen=True)
class Page:
    """A page by its parts, as `render` takes them; a notebook shows it in a frame of its own."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    footer: str = ""
    tiles: Sequence[Tile] = ()
    picture: Plot | None = None

    @property
    def html(self) -> str:
        """The whole page."""
        return render(self.title, self.lead, self.sections, self.footer, self.tiles, self.picture)

    def write(self, path: str | Path) -> Path:
        """The page as a file, whole or not at all; missing folders are made."""
        path = Path(path)
        artifacts.write_text(path, self.html)
        return path

    def _repr_html_(self) -> str:
        # In a frame, or the page's style would be the notebook's too.
        page = html.escape(self.html)
        return f'<iframe srcdoc="{page}" style="width:100%;height:40rem;border:0" sandbox="allow-scripts"></iframe>'


def _is_figure(cell: str | Link) -> bool:
    return isinstance(cell, str) and bool(re.match(r"[+\-−±]?\d|[–-]?$", cell.strip()))


def _values(trace: Any, key: str) -> list[Any]:
    """What a trace of plotly has under a key: nothing, a tuple or an array."""
    return np.asarray(trace[key], dtype=object).tolist() if key in trace and trace[key] is not None else []


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as a data URL. A text that a spreadsheet would take for a formula is marked as text."""

    def cell(value: Any) -> Any:
        text = value.text if isinstance(value, Link) else value
        return f"'{text}" if isinstance(text, str) and text[:1] in tuple("=@+-") and not _is_figure(text) else text

    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([cell(value) for value in row] for row in rows)
    return "data:text/csv;base64," + base64.b64encode(out.getvalue().encode(errors="backslashreplace")).decode()
