"""What a discovery scorecard found: every method in every organism, and the rows of the table that come of it.

Answers of all planted cells are pooled, and rates vary by organism and by domain; the least and the highest cell stand
beside.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from emlab.detection import Auroc
from emlab.discovery import Cosines, Effect, Test, Trial
from emlab.discovery.passes import Passes
from emlab.evaluation import Rate, Score, score_judged
from emlab.evaluation.comparing import paired_counts
from emlab.evaluation.intervals import share_removed
from emlab.evaluation.pooling import pooled

PLANTED, CONTROL, OWN = "planted", "control", "own model"
"""The worlds: one hidden persona a document; no shared persona; a model of which nothing is known."""

UNKNOWN = "not known"

COLUMNS = (
    *(
        "method",
        "added: misaligned (incoherent)",
        "subtracted",
        "both ways",
        "over the cap",
        "removed",
        "AUROC",
        "false",
    ),
    "passes",
)
"""Of the compact table."""


@dataclass(frozen=True, eq=False)
class Steered:
    """A direction after the screens: its arm on the test questions, and what the decision says."""

    plus: Trial
    """Added to the aligned model."""
    minus: Trial
    """Subtracted from the fine-tune."""
    adds: Test
    """Whether adding misaligns beyond every null, under the cap."""
    subtracts: Test
    """Whether subtracting realigns beyond every null, under the cap."""
    natural: Effect
    """Its component in the fine-tune set to what it is in the aligned model."""

    @property
    def both(self) -> bool:
        """Whether it controls the behaviour both ways."""
        return self.adds.holds and self.subtracts.holds


@dataclass(frozen=True, eq=False)
class Entry:
    """One method in one cell."""

    method: str
    latent: str
    """The latents it named, by site; empty where it names none."""
    steered: Steered | None
    """None where it found no direction."""
    reason: str
    """Why it found none."""
    planted: Auroc | None
    """Documents of the malicious persona told from others at the header of their last turn; None where nobody knows."""
    search: Passes
    """What the search took, at all sites."""
    sae: Passes
    """What the training of the base model's SAEs took besides, where the method uses them: they serve many searches."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One fine-tune of one organism in one world."""

    organism: str
    world: str
    seed: int
    aligned: Score
    tuned: Score
    entries: tuple[Entry, ...]
    nulls: tuple[Trial, ...]
    """The null directions' chosen arms: added, on the test questions."""
    nulls_minus: tuple[Trial, ...]
    """Subtracted."""
    cosines: Mapping[str, Cosines]
    """Among the methods' directions, by site."""
    explained: Mapping[str, float]
    """By site: the share of the base model's variance that its SAE explains."""

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.organism}, {self.world}, fine-tune {self.seed}"

    @property
    def scores(self) -> list[Score]:
        """Of both models, and of the fine-tune and the aligned model under every direction."""
        steered = [half for e in self.entries if e.steered for half in (e.steered.plus.score, e.steered.minus.score)]
        return [self.aligned, self.tuned, *steered, *(t.score for t in (*self.nulls, *self.nulls_minus))]

    def entry(self, method: str) -> Entry:
        """Of a method."""
        return next(entry for entry in self.entries if entry.method == method)


@dataclass(frozen=True)
class Spread:
    """A figure over cells: of all together, with its 95% interval where there is one, and the extremes."""

    value: float
    low: float
    high: float
    least: float
    most: float
    """Of single cells."""
    cells: int

    def __str__(self) -> str:
        if not self.cells:
            return "–"
        return f"{self.value:.0%} [{self.low:.0%}, {self.high:.0%}] ({self.least:.0%} to {self.most:.0%})"

    def short(self, form: str = ".0%", extremes: bool = True) -> str:
        """The figure, and the extremes of several cells."""
        if not self.cells:
            return "–"
        beside = f" ({self.least:{form}}–{self.most:{form}})" if extremes and self.cells > 1 else ""
        return f"{self.value:{form}}{beside}"


NOTHING = Spread(math.nan, math.nan, math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Row:
    """One method over all cells."""

    method: str
    cells: int
    """Planted cells (or those of a model of one's own)."""
    found: int
    """Of these, those in which it named a direction."""
    added: Spread
    """Misaligned of coherent answers of the aligned model, the direction added."""
    added_incoherent: Spread
    subtracted: Spread
    """Of the fine-tune, the direction subtracted."""
    subtracted_incoherent: Spread
    adds: int
    """Cells in which adding passes the decision."""
    subtracts: int
    both: int
    """Cells in which both do."""
    over: int
    """Arms, of the two in each cell, that are over the cap on incoherence on the test questions: these do not pass."""
    removed: Spread
    """Share of the misalignment gone at natural magnitude."""
    removed_incoherent: Spread
    auroc: Spread | None
    """The mean over cells of the AUROC for the planted persona, and of the ends of its intervals; None: not known."""
    false_adds: int | None
    """Control cells in which adding passes; None where there is no control world."""
    false_both: int | None
    """Control cells in which both do: a false discovery."""
    controls: int
    search: Passes
    """A search, on average over the planted cells."""
    sae: Passes
    """The SAEs it uses besides."""

    @property
    def area(self) -> str:
        """The AUROC, in short."""
        return UNKNOWN if self.auroc is None else self.auroc.short(".2f")

    @property
    def false(self) -> str:
        """False discoveries, and control cells in which adding passes."""
        return UNKNOWN if self.false_adds is None else f"{self.false_both}, {self.false_adds} of {self.controls}"

    @property
    def cost(self) -> str:
        """Rows through models, in short."""
        plus = f" + {_thousands(self.search.backwards)} back" if self.search.backwards else ""
        sae = f" (SAE {_thousands(self.sae.forwards)})" if self.sae.forwards else ""
        return f"{_thousands(self.search.forwards)}{plus}{sae}"


@dataclass(frozen=True, eq=False)
class Scorecard:
    """All methods over all cells."""

    cells: tuple[Cell, ...]
    cap: float
    """Highest share of incoherent answers at which an arm may be chosen."""

    @property
    def methods(self) -> tuple[str, ...]:
        """In their order."""
        return tuple(entry.method for entry in self.cells[0].entries)

    @property
    def planted(self) -> list[Cell]:
        """Cells in which there is something to find."""
        return [cell for cell in self.cells if cell.world != CONTROL]

    @property
    def controls(self) -> list[Cell]:
        """Cells without a shared persona."""
        return [cell for cell in self.cells if cell.world == CONTROL]

    def rows(self) -> tuple[Row, ...]:
        """The table."""
        return tuple(self._row(method) for method in self.methods)

    def text(self) -> str:
        """The compact table in Markdown: a row a method, the methods in their order."""
        lines = [COLUMNS]
        for row in self.rows():
            added, subtracted = (
                f"{rate.short()} ({incoherent.short(extremes=False)})"
                for rate, incoherent in ((row.added, row.added_incoherent), (row.subtracted, row.subtracted_incoherent))
            )
            both, over = f"{row.both} of {row.cells}", f"{row.over} of {2 * row.found}"
            lines.append(
                (row.method, added, subtracted, both, over, row.removed.short(), row.area, row.false, row.cost)
            )
        head, *rest = (f"| {' | '.join(line)} |" for line in lines)
        return "\n".join((head, f"|{'|'.join(['---'] * len(COLUMNS))}|", *rest))

    def behaviour(self, world: str, tuned: bool) -> Spread:
        """Misaligned of coherent answers of the aligned models of a world's cells, or of the fine-tunes."""
        of = [(c.organism, c.tuned if tuned else c.aligned) for c in self.cells if c.world == world]
        return _rates(of, "misaligned")

    def nulls(self, minus: bool = False) -> Spread:
        """Misaligned of coherent answers under all null directions in the planted cells; extremes of single ones."""
        of = self.planted
        return _rates([(c.organism, t.score) for c in of for t in (c.nulls_minus if minus else c.nulls)], "misaligned")

    def cosines(self) -> dict[str, Cosines]:
        """By site: the mean cosines over the planted cells, among the methods that named a direction in all of them."""
        found: dict[str, Cosines] = {}
        for site in self.planted[0].cosines:
            tables = [cell.cosines[site] for cell in self.planted if site in cell.cosines]
            names = [name for name in tables[0].names if all(name in table.names for table in tables)]
            values = [torch.tensor([[table.between(a, b) for b in names] for a in names]) for table in tables]
            if len(names) > 1:
                found[site] = Cosines(tuple(names), torch.stack(values).mean(0))
        return found

    def _row(self, method: str) -> Row:
        planted, controls = self.planted, self.controls
        entries = [cell.entry(method) for cell in planted]
        where = [(cell.organism, s) for cell in planted if (s := cell.entry(method).steered) is not None]
        done = [s for _, s in where]
        false = [s for cell in controls if (s := cell.entry(method).steered) is not None]
        areas = [e.planted for e in entries if e.planted is not None]
        plus, minus = [(o, s.plus.score) for o, s in where], [(o, s.minus.score) for o, s in where]
        return Row(
            method,
            len(planted),
            len(done),
            _rates(plus, "misaligned"),
            _rates(plus, "incoherent"),
            _rates(minus, "misaligned"),
            _rates(minus, "incoherent"),
            sum(s.adds.holds for s in done),
            sum(s.subtracts.holds for s in done),
            sum(s.both for s in done),
            sum(not t.score.incoherent.rate <= self.cap for s in done for t in (s.plus, s.minus)),
            _removed([(o, s.natural) for o, s in where]),
            _rates([(o, s.natural.after) for o, s in where], "incoherent"),
            _areas(areas) if any(cell.world == PLANTED for cell in planted) else None,
            sum(s.adds.holds for s in false) if controls else None,
            sum(s.both for s in false) if controls else None,
            len(controls),
            _mean([e.search for e in entries]),
            _mean([e.sae for e in entries]),
        )


def scorecard_summary(card: Scorecard) -> dict[str, Any]:
    """The figures as plain values."""
    kept = ("site", "positions", "strength", "total", "coherent", "misaligned", "rate_coherent", "rate_incoherent")

    def trial(t: Trial) -> dict[str, Any]:
        row = t.row()
        return {key: row[key] for key in kept}

    def steered(s: Steered) -> dict[str, Any]:
        natural = {k: v for k, v in s.natural.row().items() if k not in ("model", "strength", "name")}
        decided = {"adds": s.adds.holds, "subtracts": s.subtracts.holds, "said": [s.adds.said, s.subtracts.said]}
        return {"added": trial(s.plus), "subtracted": trial(s.minus), **decided, "natural": natural}

    def entry(e: Entry) -> dict[str, Any]:
        about = {"latent": e.latent, "reason": e.reason, "planted_auroc": e.planted, "search": e.search, "sae": e.sae}
        return {**about, "steered": None if e.steered is None else steered(e.steered)}

    def cell(c: Cell) -> dict[str, Any]:
        return {
            "organism": c.organism,
            "world": c.world,
            "seed": c.seed,
            "aligned": c.aligned.overall.summary(),
            "fine_tuned": c.tuned.overall.summary(),
            "sae_explained_variance": c.explained,
            "methods": {e.method: entry(e) for e in c.entries},
            "nulls_added": [trial(t) for t in c.nulls],
            "nulls_subtracted": [trial(t) for t in c.nulls_minus],
        }

    return {
        "cap": card.cap,
        "rows": card.rows(),
        "nulls": {"added": card.nulls(), "subtracted": card.nulls(minus=True)},
        "cosines": {site: {"names": c.names, "values": c.values} for site, c in card.cosines().items()},
        "cells": [cell(c) for c in card.cells],
    }


def _thousands(n: int) -> str:
    return f"{n / 1000:.1f}k" if n >= 1000 else str(n)


def _rates(scores: Sequence[tuple[str, Score]], kind: Literal["misaligned", "incoherent"]) -> Spread:
    """The pooled rate of scores, each with its organism; those without a coherent answer are not among the extremes."""
    single = [rate.rate for _, score in scores if (rate := getattr(score, kind)).n]
    return _spread(getattr(_together(scores), kind), single) if single else NOTHING


def _removed(effects: Sequence[tuple[str, Effect]]) -> Spread:
    """The share removed of all cells' misalignment together."""
    single = [effect.removed for _, effect in effects if math.isfinite(effect.removed)]
    if not single:
        return NOTHING
    before, after = (_together([(o, getattr(e, when)) for o, e in effects]) for when in ("before", "after"))
    return _spread(share_removed(*paired_counts(before, after, "coherent", list(before.by_question))), single)


def _together(scores: Sequence[tuple[str, Score]]) -> Score:
    """All answers, which vary by organism, and of one organism by fine-tune."""
    organisms = [organism for organism, _ in scores]
    return score_judged(pooled([s.judged for _, s in scores], "all", organisms if len(set(organisms)) > 1 else ()))


def _spread(whole: Rate, single: Sequence[float]) -> Spread:
    return Spread(whole.rate, whole.low, whole.high, min(single), max(single), len(single))


def _areas(areas: Sequence[Auroc]) -> Spread:
    known = [area for area in areas if math.isfinite(area.auroc)]
    if not known:
        return NOTHING
    value, low, high = (statistics.fmean(getattr(a, name) for a in known) for name in ("auroc", "low", "high"))
    return Spread(value, low, high, min(a.auroc for a in known), max(a.auroc for a in known), len(known))


def _mean(passes: Sequence[Passes]) -> Passes:
    names = ("forwards", "backwards", "tokens")
    return Passes(*(round(statistics.fmean(getattr(one, name) for one in passes)) for name in names))
