"""The discovery scorecard as a table in Markdown, as a figure, and as a page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emlab.discovery.passes import Passes
from emlab.evaluation.unjudged import cautions
from emlab.experiments.discovery_scorecard.method import METHODS
from emlab.experiments.discovery_scorecard.table import CONTROL, PLANTED, Entry, Row, Scorecard
from emlab.reporting.discovery_figures import cosines_figure
from emlab.reporting.page import Plot, Section, Table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def scorecard_lead(card: Scorecard) -> list[str]:
    """What came out, in a few plain sentences."""
    rows, planted = card.rows(), card.planted
    organisms = {cell.organism for cell in planted}
    aligned, tuned = card.behaviour(planted[0].world, tuned=False), card.behaviour(planted[0].world, tuned=True)
    lead = cautions(score for cell in card.cells for score in cell.scores)
    lead.append(
        f"Fine-tunes: {len(planted)}, of models: {len(organisms)}. Misaligned of coherent answers "
        f"{aligned.short()} before, {tuned.short()} after."
    )
    best = max(row.both for row in rows)
    winners = [row.method for row in rows if row.both == best]
    losers = [row.method for row in rows if row.both == 0]
    if best:
        lead.append(f"Most often both ways, in {best} of {len(planted)}: {', '.join(winners)}.")
    if losers:
        lead.append(f"Never both ways: {', '.join(losers)}.")
    lead.append(
        f"Null directions, {sum(len(c.nulls) for c in planted)} in all: {card.nulls().short()} where added, "
        f"{card.nulls(minus=True).short()} where subtracted."
    )
    if card.controls:
        before, after = card.behaviour(CONTROL, tuned=False), card.behaviour(CONTROL, tuned=True)
        false = [f"{row.method} ({row.false_both})" for row in rows if row.false_both]
        alone = [f"{row.method} ({row.false_adds})" for row in rows if row.false_adds]
        lead.append(
            f"In the control world the fine-tunes take misaligned answers from {before.short()} to {after.short()}. "
            f"False discoveries in {len(card.controls)} searches a method: {', '.join(false) or 'none'}; by adding "
            f"alone: {', '.join(alone) or 'none'}."
        )
    return lead


def scorecard_figure(card: Scorecard) -> Figure:
    """The scorecard as a heatmap: a row a method, a column a figure of merit, from 0 to 1 the better the redder."""
    import plotly.graph_objects as go

    columns = ("added", "taken away", "both ways", "removed", "AUROC", "no false adding")
    values = [_merits(row, card) for row in card.rows()]
    names = [html.escape(row.method) for row in card.rows()]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if math.isnan(v) else max(0.0, min(1.0, v)) for v in line] for line in values],
            x=list(columns),
            y=names,
            text=[["–" if math.isnan(v) else f"{v:.2f}" for v in line] for line in values],
            texttemplate="%{text}",
            hovertemplate="%{y}, %{x}: %{text}<extra></extra>",
            zmin=0,
            zmax=1,
            colorscale=[[0, "#f4f6f9"], [1, "#c0392b"]],
        )
    )
    figure.update_layout(template="none", height=180 + 30 * len(names), margin={"l": 20, "r": 20, "t": 20, "b": 20})
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(side="top", automargin=True)
    return figure


def scorecard_sections(card: Scorecard) -> list[Section]:
    """The page's sections."""
    planted = card.planted
    return [
        Section(
            "Every method, the same proof",
            "Each direction is added to the aligned model and subtracted from the fine-tune, at the arm that was "
            "chosen on other questions. First figure: all cells together [95% interval over questions] (the least "
            "and the highest cell). 'Both ways': cells in which adding misaligns and subtracting realigns beyond every "
            "null. 'Removed': the share of the misalignment that goes when the component along the direction is set "
            "to what it is in the aligned model.",
            (
                Plot(
                    scorecard_figure(card),
                    "added: misaligned of coherent answers of the aligned model; taken away: the share of the "
                    "fine-tune's misaligned answers gone when it is subtracted; the others as in the table. A dash: "
                    "not known, or no direction found.",
                ),
            ),
            (_long_table(card),),
            falsified="a random direction, matched in norm or in covariance, that does as much; or a method that "
            "passes in the control world, where no shared persona is.",
        ),
        Section(
            "What it cost",
            "Rows that went through models: those of a search at all sites, on average, and those of the training of "
            "the SAEs it uses, which serve many searches. The screens that prove a direction are the same for all and "
            "are not counted, but the one that chooses among latents is. Before that, what the method looks at besides "
            "the aligned model and the questions.",
            tables=(_costs(card),),
        ),
        Section(
            "How alike the directions are",
            f"Cosines among the directions that the methods named, on average over the {len(planted)} fine-tunes.",
            tuple(Plot(cosines_figure(table), f"At {site}.") for site, table in card.cosines().items()),
        ),
        *(_cell_section(card, world) for world in dict.fromkeys(cell.world for cell in card.cells)),
    ]


def _cell_section(card: Scorecard, world: str) -> Section:
    cells = [cell for cell in card.cells if cell.world == world]
    header = ("fine-tune", "method", "site", "strengths", "added", "subtracted", "decision", "removed", "AUROC")
    rows = [(c.name, *_entry(entry)) for c in cells for entry in c.entries]
    titles = {PLANTED: "Every fine-tune", CONTROL: "Every fine-tune of the control world"}
    return Section(
        titles.get(world, "Every fine-tune"),
        "; ".join(f"{c.name}: {c.tuned.misaligned} misaligned, {c.tuned.incoherent} incoherent" for c in cells) + ".",
        tables=(Table(header, tuple(rows)),),
    )


def _entry(entry: Entry) -> tuple[str, ...]:
    s, name = entry.steered, f"{entry.method} {entry.latent}".strip()
    if s is None:
        return (name, "–", "–", "–", "–", entry.reason, "–", "–")
    said = "both ways" if s.both else "adds" if s.adds.holds else "subtracts" if s.subtracts.holds else "neither"
    return (
        name,
        str(s.plus.arm.site),
        f"{s.plus.arm.strength:+.1f}, {s.minus.arm.strength:+.1f}",
        f"{s.plus.score.misaligned} ({s.plus.score.incoherent.rate:.0%})",
        f"{s.minus.score.misaligned} ({s.minus.score.incoherent.rate:.0%})",
        said,
        f"{s.natural.removed:.0%}" if math.isfinite(s.natural.removed) else "–",
        "–" if entry.planted is None else entry.planted.missing or f"{entry.planted.auroc:.2f}",
    )


def _long_table(card: Scorecard) -> Table:
    header = (
        *(
            "method",
            "found",
            "added",
            "incoherent",
            "subtracted",
            "incoherent",
            "adds",
            "subtracts",
            "both ways",
            "over the cap",
        ),
        *("removed", "incoherent", "AUROC", "false: both, adding"),
    )
    rows = tuple(
        (
            row.method,
            f"{row.found} of {row.cells}",
            str(row.added),
            row.added_incoherent.short(),
            str(row.subtracted),
            row.subtracted_incoherent.short(),
            *(f"{n} of {row.cells}" for n in (row.adds, row.subtracts, row.both)),
            f"{row.over} of {2 * row.found}",
            str(row.removed),
            row.removed_incoherent.short(),
            row.area,
            row.false,
        )
        for row in card.rows()
    )
    return Table(header, rows)


def _costs(card: Scorecard) -> Table:
    def cells(passes: Passes) -> tuple[str, ...]:
        return tuple(f"{n:,}" for n in (passes.forwards, passes.backwards, passes.tokens))

    header = ("method", "looks at", "rows forward", "backward", "tokens", "SAEs: rows forward", "backward", "tokens")
    return Table(
        header, tuple((row.method, _needs(row.method), *cells(row.search), *cells(row.sae)) for row in card.rows())
    )


def _needs(method: str) -> str:
    known = method in METHODS.names()  # a scorecard may be older than the methods that are installed
    return (", ".join(METHODS.get(method).needs) or "nothing") if known else "–"


def _merits(row: Row, card: Scorecard) -> Sequence[float]:
    before = card.behaviour(card.planted[0].world, tuned=True).value
    taken = 1 - row.subtracted.value / before if before else math.nan
    quiet = math.nan if not row.controls or row.false_adds is None else 1 - row.false_adds / row.controls
    area = math.nan if row.auroc is None else row.auroc.value
    return (row.added.value, taken, row.both / row.cells, row.removed.value, area, quiet)
