"""The report of data screening: how much planted poison is found before training, and who is to blame after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emlab.evaluation import Rate
from emlab.reporting.drawing import PALETTE, escaped, figure_of, rate_bars
from emlab.reporting.evaluation import shown_rate
from emlab.reporting.page import Plot, Section, Table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class PoisonRecall:
    """How much of the poison one way of ranking finds, over all mixes of one kind of poison."""

    by: str
    inside: bool
    """Whether it reads activations; the others are baselines."""
    kind: str
    """Of the poison: bad, subtle."""
    recall: Rate
    """The share of the poison among the most suspicious, 1.2 times as many examples as there is poison."""
    over: str
    """What its interval is over: the mixes' domains × seeds."""
    each: Mapping[str, float]
    """The same of every mix, by domain and seed."""


@dataclass(frozen=True)
class RankedSet:
    """A whole dataset."""

    name: str
    poison: bool | None
    """Whether it is meant to misalign; None where it is neither."""
    means: Mapping[str, float]
    """The mean score of its examples, by way of ranking."""


@dataclass(frozen=True)
class Removal:
    """A fine-tune trained again without some of its examples."""

    without: str
    """all (nothing is left out), blamed, random, poison."""
    rows: int
    reading: float
    """The monitor's mean on prompts, less that of the model before."""
    misaligned: Rate
    """Of coherent answers."""


@dataclass(frozen=True)
class Blamed:
    """Who moved the monitor, in one fine-tune."""

    name: str
    seed: int
    poison: int
    recall: Mapping[str, float]
    """By way of blaming: the share of the poison among as many of the most blamed."""
    removals: tuple[Removal, ...]


@dataclass(frozen=True)
class DataScreenFindings:
    """What a run found."""

    model: str
    source: str
    """The domain that directions and the bag of words come from."""
    dose: float
    times: float
    chosen: Mapping[str, str]
    """For each kind of direction, where and how it is read, as chosen on the validation mix."""
    found: tuple[PoisonRecall, ...]
    sets: tuple[RankedSet, ...]
    blame: tuple[Blamed, ...]


def data_screen_lead(found: DataScreenFindings) -> list[str]:
    """What came out, in sentences."""
    lines = []
    for kind in dict.fromkeys(row.kind for row in found.found):
        said = ", ".join(f"{row.by} {row.recall.share}" for row in found.found if row.kind == kind)
        lines.append(
            f"Of {kind} poison at a dose of {found.dose:.0%}, among {found.times:g} times as many examples as there is "
            f"poison, directions and words from {found.source}: {said}."
        )
    for way in dict.fromkeys(by for one in found.sets for by in one.means):
        bad, good = ([s.means[way] for s in found.sets if s.poison is flag] for flag in (True, False))
        if bad and good:
            pairs = [b > g for b in bad for g in good]
            lines.append(f"Whole datasets by {way}: {sum(pairs)} of {len(pairs)} pairs in the right order.")
    for one in found.blame:
        ways = ", ".join(f"{by} {share:.1%}" for by, share in one.recall.items())
        left = ", ".join(f"{r.without} {r.reading:+.2f} ({r.misaligned.share})" for r in one.removals)
        lines.append(
            f"Blame in {one.name}, seed {one.seed}: of {one.poison} poisoned examples, among as many most blamed: "
            f"{ways}. Trained again without: the monitor's rise (misaligned answers) {left}."
        )
    return lines


def data_screen_sections(found: DataScreenFindings) -> list[Section]:
    """The parts of the page."""
    kinds = list(dict.fromkeys(row.kind for row in found.found))
    mixes = {row.kind: row.over for row in found.found}
    rows = [
        (row.kind, row.by, shown_rate(row.recall), ", ".join(f"{name} {x:.0%}" for name, x in row.each.items()))
        for row in found.found
    ]
    parts = [
        Section(
            "Before training",
            f"The share of the poison among the {found.times:g} times as many examples that rank highest. Directions, "
            f"and the bag of words, come from {found.source}; where a direction is read was chosen on another domain "
            f"still. Intervals are over mixes: {'; '.join(f'{kind}, {many}' for kind, many in mixes.items())}.",
            plots=(Plot(found_figure(found.found), "Poison found, by way of ranking and kind of poison."),),
            tables=(Table(("poison", "ranked by", "found", "each mix"), tuple(rows)),),
            falsified="a bag of words, or the loss, that finds as much of the " + " and ".join(kinds) + " poison.",
        ),
        Section(
            "Whole datasets",
            "Datasets by the mean score of their examples.",
            tables=(_sets(found.sets),),
        ),
    ]
    if found.blame:
        removals = [
            (f"{one.name}, seed {one.seed}", r.without, str(r.rows), f"{r.reading:+.3f}", shown_rate(r.misaligned))
            for one in found.blame
            for r in one.removals
        ]
        recalls = [
            (f"{one.name}, seed {one.seed}", by, f"{share:.1%}")
            for one in found.blame
            for by, share in one.recall.items()
        ]
        parts.append(
            Section(
                "Blame after training",
                "The share of the poison among as many most blamed examples; and the same fine-tune without some.",
                tables=(
                    Table(("fine-tune", "blamed by", "poison found"), tuple(recalls)),
                    Table(("fine-tune", "without", "rows", "monitor's rise", "misaligned"), tuple(removals)),
                ),
                falsified="random examples whose removal takes as much of the monitor's rise away.",
            )
        )
    return parts


def found_figure(found: Sequence[PoisonRecall]) -> Figure:
    """Poison found, with 95% intervals."""
    kinds = dict.fromkeys(row.kind for row in found)
    bars = [
        rate_bars(
            f"{kind} poison",
            [escaped(row.by) for row in found if row.kind == kind],
            [row.recall for row in found if row.kind == kind],
            colour,
        )
        for kind, colour in zip(kinds, PALETTE, strict=False)
    ]
    return figure_of(bars, "poison found", percent=True)


def _sets(sets: Sequence[RankedSet]) -> Table:
    ways = list(dict.fromkeys(by for one in sets for by in one.means))
    kind = {True: "poison", False: "harmless", None: "neither"}
    ordered = sorted(sets, key=lambda one: -one.means[ways[0]]) if ways else []
    rows = tuple((one.name, kind[one.poison], *(f"{one.means[way]:.3f}" for way in ways)) for one in ordered)
    return Table(("dataset", "", *ways), rows)
