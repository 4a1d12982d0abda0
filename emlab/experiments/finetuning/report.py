"""The report of a grid of fine-tunes: rates of every arm, the dose curve, and what happens along training.

Answers of all seeds of an arm are pooled, and rates vary by domain and by seed; every seed stands beside.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from emlab import artifacts
from emlab.evaluation import Rate, Score
from emlab.evaluation.unjudged import cautions
from emlab.experiments.finetuning.findings import FinetuneFindings, turning
from emlab.reporting.figures import bars_figure, curves_figure, dose_figure, losses_figure
from emlab.reporting.page import Plot, Section, Table
from emlab.training import ReadOut

MARKS = {
    "latent": "latent half-way",
    "behaviour": "behaviour half-way",
    "gradient": "gradient highest",
    "rotation": "rotation largest",
}
"""What may turn along a fine-tune, and when it is said to."""


def finetuning_lead(found: FinetuneFindings) -> list[str]:
    """The findings in a few sentences."""
    lead = cautions([*found.before.values(), *(group.score for group in found.groups)])
    for group in found.groups:
        score, ending, questions = group.score, group.first.ending, group.first.questions
        asked = f", asked with {ending.strip()!r} at the end" if ending else f", asked {questions}" if questions else ""
        lead.append(
            f"{group.arm} from {group.first.start}{asked} ({len(group.ones)} seeds): "
            + (
                f"misaligned {score.misaligned} coherent answers ({group.before.misaligned.share} before), incoherent "
                f"{score.incoherent.share} of the scored."
                if score.misaligned.n
                else f"no coherent answer to rate, of {score.incoherent.n} scored ones."
            )
        )
    if found.config.figure == "dose":
        for name, down in found.falls.items():
            said = "rises or stays with every dose, within its intervals" if not down else "falls somewhere"
            lead.append(f"The dose curve{f' of {name}' if name else ''} {said}.")
    lead += [f"{name}: {sentence}" for name, sentence in _turnings(found).items()]
    if found.left_out:
        model = found.config.model
        lead.append(f"Left out, as they are the organism's and {model} is not: {', '.join(found.left_out)}.")
    return lead


def finetuning_sections(found: FinetuneFindings) -> list[Section]:
    """The report's sections: one figure, its table, and the losses."""
    figure, says = _figure(found)
    sections = [
        Section(
            "Misaligned answers to unrelated questions",
            "Answers of all seeds together; 95% intervals over domains (or questions) and seeds.",
            plots=(Plot(figure, says),),
            tables=(_rates(found),),
        )
    ]
    if found.config.figure == "dose":
        rows = [
            (name, f"{fall['from']:.0%} → {fall['to']:.0%}", fall["change"].points)
            for name, down in found.falls.items()
            for fall in down
        ]
        sections.append(
            Section(
                "Is the curve monotone?",
                f"{len(rows)} larger doses lie below a smaller one, their intervals apart.",
                tables=(Table(("", "dose", "change, paired"), tuple(rows)),) if rows else (),
                falsified="A larger dose whose interval lies wholly below a smaller one's.",
            )
        )
    if found.followed:
        sections.append(
            Section(
                "Which comes first?",
                "The read-out at which the leading latent and the misaligned share of all answers have made half of "
                "their way, and at which the gradient and the adapter's rotation are largest; and how much of the "
                "behaviour's rise falls between two neighbouring read-outs.",
                tables=(_turning_table(found),),
                falsified="A behaviour that turns before the latent, or that rises as evenly as the read-outs allow.",
            )
        )
    losses = {f"{c.arm.name}, {c.start}, seed {c.seed}": c.training.losses for c in found.trainings}
    plot = Plot(losses_figure(losses), "Every seed.")
    return [*sections, Section("Losses", "Mean loss a supervised token, by step.", plots=(plot,))]


def finetuning_summary(found: FinetuneFindings) -> dict[str, Any]:
    """The results' part of summary.json: rates are {rate, low, high, n}, with 95% intervals over what is `drawn`."""
    arms = []
    for group in found.groups:
        first, by_seed = group.first, {}
        for cell in group.ones:
            record = cell.training
            by_seed[str(cell.seed)] = {
                **_rate_entry(cell.score),
                "loss": [record.losses[0], record.losses[-1]],
                **{key: getattr(record, key) for key in ("rows", "dropped_for_length", "cpu_seconds", "points")},
                **({"turning": turning(cell, found.latents)} if record.points else {}),
            }
        arms.append(
            {
                "arm": group.arm,
                "start": first.start,
                "ending": first.ending,
                "questions": first.questions,
                "group": first.arm.group or group.arm,
                "series": first.arm.series,
                "dose": first.arm.dose,
                **_rate_entry(group.score),
                "misaligned_of_all": group.score.of_all,
                "drawn": group.score.drawn,
                "change_of_coherent": group.change.misaligned,
                "by_seed": by_seed,
            }
        )
    before = [
        {"start": start, "ending": ending, "questions": questions, **_rate_entry(s), "misaligned_of_all": s.of_all}
        for (start, ending, questions), s in found.before.items()
    ]
    entry: dict[str, Any] = {"model": found.config.model, "before": before, "arms": arms, "latents": found.latents}
    if found.config.figure == "dose":
        entry |= {"monotone": {name: not down for name, down in found.falls.items()}, "falls": found.falls}
    plain: dict[str, Any] = artifacts.plain({**entry, "first": _turnings(found), "left_out": found.left_out})
    return plain


def _rate_entry(score: Score) -> dict[str, Rate]:
    return {"misaligned_of_coherent": score.misaligned, "incoherent_of_scored": score.incoherent}


def _figure(found: FinetuneFindings) -> tuple[Any, str]:
    if found.config.figure == "dose":
        return dose_figure(found.doses), "By the share of bad rows in the training set, at the same number of rows."
    if found.config.figure == "curves":
        curves: dict[str, list[Sequence[ReadOut]]] = {}
        for cell in found.trainings:
            curves.setdefault(cell.arm.name, []).append(cell.training.points)
        return curves_figure(curves, found.latents), "One line a seed. Answers to a few discovery questions."
    bars: dict[str, dict[str, Score]] = {}
    for group in found.drawn:
        x, series = found.place(group.first)
        bars.setdefault(series, {})[x] = group.score
    return bars_figure(bars), "Misaligned, of coherent answers."


def _rates(found: FinetuneFindings) -> Table:
    def cells(score: Score) -> tuple[str, ...]:
        return str(score.misaligned), str(score.of_all), str(score.incoherent)

    rows = [
        ("before", start, ending.strip() or questions, "", "", *cells(s), "", "")
        for (start, ending, questions), s in found.before.items()
    ]
    for group in found.groups:
        about = (group.arm, group.first.start, group.first.ending.strip() or group.first.questions)
        for one in group.ones:
            record = one.training
            dropped = f" ({record.dropped_for_length} dropped for length)" if record.dropped_for_length else ""
            used, loss = f"{record.rows}{dropped}", f"{record.losses[-1]:.3f}"
            rows.append((*about, str(one.seed), used, *cells(one.score), loss, ""))
        rows.append((*about, "all", "", *cells(group.score), "", group.change.misaligned.points))
    header = ("", "start", "asked with", "seed", "rows", "misaligned, of coherent", "misaligned, of all")
    return Table((*header, "incoherent, of scored", "last loss", "change of coherent, paired"), tuple(rows))


def _turnings(found: FinetuneFindings) -> dict[str, str]:
    """By arm: what turns first, and whether behaviour jumps, in a sentence."""
    said = {}
    for arm in dict.fromkeys(cell.arm.name for cell in found.followed):
        ones = [turning(cell, found.latents) for cell in found.followed if cell.arm.name == arm]
        steps = {name: [step for one in ones if (step := one.steps[name]) is not None] for name in MARKS}
        medians = {name: statistics.median(reached) for name, reached in steps.items() if reached}
        order = ", ".join(f"{name} at step {medians[name]:g}" for name in sorted(medians, key=medians.__getitem__))
        jump = " Behaviour does not rise."
        if jumps := [one for one in ones if math.isfinite(one.steepest)]:
            steepest, many = (statistics.median(getattr(j, name) for j in jumps) for name in ("steepest", "intervals"))
            jump = (
                f" Of the {many:g} steps between read-outs up to its highest, behaviour's steepest makes "
                f"{steepest:.0%} of the rise (medians of {len(jumps)} seeds)."
            )
        said[arm] = f"{order or 'nothing turns'}.{jump}"
    return said


def _turning_table(found: FinetuneFindings) -> Table:
    rows = []
    for cell in found.followed:
        one = turning(cell, found.latents)
        steps = ("–" if one.steps[name] is None else str(one.steps[name]) for name in MARKS)
        jump = "–" if math.isnan(one.steepest) else f"{one.steepest:.0%} of {one.intervals}"
        rows.append((cell.arm.name, str(cell.seed), *steps, jump))
    return Table(("", "seed", *MARKS.values(), "steepest rise"), tuple(rows))
