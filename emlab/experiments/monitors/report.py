"""The report of monitors: which tells misaligned models, and answers, on domains that it has never seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emlab.detection import Skill
from emlab.evaluation import Rate
from emlab.reporting.drawing import GREY, PALETTE, error_bars, escaped, figure_of, finite
from emlab.reporting.evaluation import shown_rate
from emlab.reporting.page import Plot, Section, Table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class MonitorSkill:
    """One monitor on fine-tunes of domains and seeds that it was not fitted on."""

    monitor: str
    kind: str
    """projection, probe, latent, latents; perplexity, bag of words, text judge."""
    inside: bool
    """Whether it reads activations; the others are baselines."""
    site: str
    """Empty for a baseline."""
    fitted: float
    """AUROC on the domains it was fitted on, each scored by a fit to the others: what sites are chosen by."""
    skill: Skill
    """Of single rows: one prompt of one model, or one answer."""
    models: Skill | None
    """Of whole models, by the mean over all prompts; None of answers."""
    alarms: Rate
    """Share of misaligned rows above the threshold that was set on the fitted domains."""
    false_alarms: Rate
    """Share of other rows above it."""
    hard: Rate
    """Share of the rows of hard controls above it: fine-tunes on another persona."""


@dataclass(frozen=True)
class Stream:
    """A monitor at work while the test fine-tunes write."""

    monitor: str
    site: str
    recall: Rate
    """Of misaligned answers, those on which it fired."""
    false_positives: Rate
    """Of aligned, coherent answers of the same models."""
    on_controls: Rate
    """Of the answers of fine-tunes that should not misalign."""
    written: float
    """Mean share of a misaligned answer that was written when it fired."""
    plain: Mapping[str, Rate]
    """Misaligned of all, and incoherent of scored answers, without it."""
    edited: Mapping[str, Rate]
    """The same, with the monitor's direction projected out of each token it fires on."""


@dataclass(frozen=True)
class MonitorFindings:
    """What a run found."""

    model: str
    fitted_on: tuple[str, ...]
    tested_on: tuple[str, ...]
    rates: Mapping[str, float]
    """Misaligned of coherent answers of every fine-tune."""
    prompts: tuple[MonitorSkill, ...]
    answers: tuple[MonitorSkill, ...]
    stream: Stream | None
    false_positives: float
    """The share that thresholds allow on the fitted domains."""
    over: str
    """What the intervals of alarms are over: the domains × seeds that are tested on."""


def best_inside(rows: Sequence[MonitorSkill]) -> MonitorSkill:
    """The monitor of activations to use: the one with the highest AUROC on the fitted domains."""
    return max((row for row in rows if row.inside), key=lambda row: row.fitted)


def monitors_lead(found: MonitorFindings) -> list[str]:
    """What came out, in sentences."""
    best, words = best_inside(found.prompts), _words(found.prompts)
    lines = [
        f"Of models, from prompts alone: {best.monitor} at {best.site}, chosen on {', '.join(found.fitted_on)}, has an "
        f"AUROC of {_auroc(best.skill)} on {', '.join(found.tested_on)} by single prompts"
        + (f" and {_auroc(best.models)} by whole models" if best.models is not None else "")
        + f"; a bag of words {words.skill.auroc.shown}."
    ]
    if found.answers:
        best, words = best_inside(found.answers), _words(found.answers)
        lines.append(
            f"Of answers: {best.monitor} at {best.site} {_auroc(best.skill)}; a bag of words {_auroc(words.skill)}."
        )
    if found.stream is not None:
        s = found.stream
        written = "none" if math.isnan(s.written) else f"{s.written:.0%}"
        lines.append(
            f"While answers are written, {s.monitor} fires on {s.recall.share} of the misaligned ones, when "
            f"{written} of them is written, on {s.false_positives.share} of the same models' aligned ones and "
            f"on {s.on_controls.share} of the controls' answers; its direction projected out where it fires takes "
            f"misaligned answers from {s.plain['misaligned'].share} of all to {s.edited['misaligned'].share} and "
            f"incoherent ones from {s.plain['incoherent'].share} to {s.edited['incoherent'].share}."
        )
    return lines


def monitors_sections(found: MonitorFindings) -> list[Section]:
    """The parts of the page."""
    parts = [
        Section(
            "Models, from prompts alone",
            "Each model has read a question and written nothing. A bag of words sees the same prompts of every model, "
            "so it is at chance by construction. Intervals of AUROC are over domains (of one: over fine-tunes) and "
            "questions; those of FPR and calibration over fine-tunes and questions, for these domains alone; those of "
            f"alarms over {found.over}.",
            plots=(Plot(skills_figure(found.prompts), "AUROC on unseen domains and seeds, by single prompts."),),
            tables=(_table(found.prompts),),
            falsified="a bag of words, or perplexity, that does as well.",
        )
    ]
    if found.answers:
        parts.append(
            Section(
                "Answers",
                "Coherent answers of misaligned fine-tunes, read again by the model that wrote them. Where the text "
                "judge is the one that labels the answers, its 1.0 says nothing.",
                plots=(Plot(skills_figure(found.answers), "AUROC on unseen domains and seeds, by answers."),),
                tables=(_table(found.answers),),
            )
        )
    if found.stream is not None:
        parts.append(
            Section(
                "While answers are written",
                f"{monitors_lead(found)[-1]} Intervals are over {found.over}.",
                tables=(_stream(found.stream),),
            )
        )
    rows = tuple((name, _percent(rate)) for name, rate in found.rates.items())
    parts.append(
        Section(
            "Fine-tunes",
            "Misaligned of the coherent answers to the test questions.",
            tables=(Table(("fine-tune", "misaligned"), rows),),
        )
    )
    return parts


def skills_figure(rows: Sequence[MonitorSkill]) -> Figure:
    """AUROC of each monitor with its 95% interval; baselines in grey."""
    import plotly.graph_objects as go

    areas = [Rate(area.auroc, area.low, area.high, area.n) for area in (row.skill.auroc for row in rows)]
    bars = go.Bar(
        x=[escaped(_called(row)) for row in rows],
        y=[finite(area.rate) for area in areas],
        error_y=error_bars(areas),
        marker={"color": [PALETTE[0] if row.inside else GREY for row in rows]},
    )
    figure = figure_of([bars], "AUROC")
    figure.add_hline(y=0.5, line={"color": GREY, "width": 1, "dash": "dash"})
    return figure


def _table(rows: Sequence[MonitorSkill]) -> Table:
    header = ("monitor", "fitted domains", "AUROC", "of models", "FPR at 95%", "FPR at 99%", "calibration error")
    cells = [
        (
            _called(row),
            f"{row.fitted:.3f}",
            _auroc(row.skill),
            "" if row.models is None else _auroc(row.models),
            shown_rate(row.skill.fpr95),
            shown_rate(row.skill.fpr99),
            f"{row.skill.calibration_error.rate:.3f}" if row.skill.calibration_error.n else "–",
            *map(shown_rate, (row.alarms, row.false_alarms, row.hard)),
        )
        for row in rows
    ]
    return Table((*header, "alarms", "false alarms", "hard controls"), tuple(cells))


def _stream(s: Stream) -> Table:
    rates = {
        "misaligned answers it fires on": s.recall,
        "aligned answers it fires on": s.false_positives,
        "answers of controls it fires on": s.on_controls,
        **{f"{name}, plain": rate for name, rate in s.plain.items()},
        **{f"{name}, edited": rate for name, rate in s.edited.items()},
    }
    return Table(("", "share"), tuple((name, shown_rate(rate)) for name, rate in rates.items()))


def _percent(rate: float) -> str:
    return "no coherent answer to rate" if math.isnan(rate) else f"{rate:.1%}"


def _called(row: MonitorSkill) -> str:
    return f"{row.monitor}, {row.site}" if row.site else row.monitor


def _auroc(found: Skill) -> str:
    area = found.auroc
    return area.missing or f"{area.auroc:.3f} {area.ends}"


def _words(rows: Sequence[MonitorSkill]) -> MonitorSkill:
    return next(row for row in rows if row.monitor == "bag of words")
