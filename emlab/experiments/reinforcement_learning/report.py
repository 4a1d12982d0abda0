"""The report of reinforcement learning: what each reward made of the model, and whether the persona latent carries it.

Scores of an arm's seeds are also taken together: the answers of all are pooled, question by question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emlab import artifacts
from emlab.discovery import LatentShift, Screen
from emlab.evaluation import Difference, Rate, Score, bootstrap, compare, score_judged
from emlab.evaluation.pooling import pooled
from emlab.evaluation.rates import paired_difference
from emlab.evaluation.unjudged import cautions
from emlab.experiments.persona_features.summary import random_entry, steering_entry
from emlab.interventions.direction import RANDOM
from emlab.reporting.figures import trainings_figure
from emlab.reporting.page import Plot, Section, Table
from emlab.training import Reinforced


@dataclass(frozen=True)
class StyleCount:
    """Lines of answers under one persona's cards, question by question."""

    where: str
    """What was asked: "trained" (questions like those of the training) or "unrelated" (the test questions)."""
    persona: str
    paid: bool
    """Whether the style was paid under this persona."""
    before: tuple[tuple[int, int], ...]
    """Of each question: lines with the style, and lines."""
    after: tuple[tuple[int, int], ...]

    def rate(self, when: str) -> Rate:
        """The share of lines with the style, `when` before or after."""
        hits, totals = np.array(getattr(self, when)).T
        return bootstrap(hits, totals)

    @property
    def change(self) -> Rate:
        """After less before, questions resampled in pairs."""
        (a, n), (b, m) = np.array(self.before).T, np.array(self.after).T
        return paired_difference(a, n, b, m)


@dataclass(frozen=True, eq=False)
class Trained:
    """One arm with one seed."""

    arm: str
    seed: int
    reward: str
    start: str
    prompts: str
    training: Reinforced
    score: Score
    shift: LatentShift | None = None
    """From the model at its start; None where no SAE is read."""
    screen: Screen | None = None
    """The latent's direction subtracted, beside random ones; only of the arms that are asked for."""
    style: tuple[StyleCount, ...] = ()
    """Of the arm whose reward is style."""
    cpu_seconds: float = math.nan
    """What the training took."""


@dataclass(frozen=True, eq=False)
class ReinforcementFindings:
    """What a run found."""

    starts: Mapping[str, Score]
    """The models that trainings began with, by name."""
    trained: tuple[Trained, ...]
    latent: int | None
    """The supervised persona latent."""
    site: str
    top: int
    """An arm carries the latent if it is among so many that rise most."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(dict.fromkeys(one.arm for one in self.trained))

    def of(self, arm: str) -> list[Trained]:
        """An arm with each seed."""
        return [one for one in self.trained if one.arm == arm]

    def pooled(self, arm: str) -> Score:
        """The answers of all seeds as one model's."""
        return score_judged(pooled([one.score.judged for one in self.of(arm)], arm))

    def styles(self, arm: str) -> tuple[StyleCount, ...]:
        """The style counts of all seeds together."""
        every = [one.style for one in self.of(arm)]

        def summed(counts: Sequence[StyleCount], when: str) -> tuple[tuple[int, int], ...]:
            total = np.sum([getattr(count, when) for count in counts], axis=0)
            return tuple((int(hits), int(lines)) for hits, lines in total)

        return tuple(
            replace(counts[0], before=summed(counts, "before"), after=summed(counts, "after"))
            for counts in zip(*every, strict=True)
        )

    def change(self, arm: str) -> Difference:
        """All seeds of an arm against the model they began with, paired by question."""
        return compare(self.starts[self.of(arm)[0].start], self.pooled(arm))


def reinforcement_lead(found: ReinforcementFindings) -> list[str]:
    """The findings in a few sentences."""
    lead = cautions([*found.starts.values(), *(found.pooled(arm) for arm in found.arms)])
    for arm in found.arms:
        first, score, change = found.of(arm)[0], found.pooled(arm), found.change(arm).misaligned
        began = found.starts[first.start]
        lead.append(
            f"{arm} ({len(found.of(arm))} seeds, reward {first.reward} on {first.prompts}): misaligned "
            f"{_share(began.misaligned)} → {_share(score.misaligned)} of coherent answers to unrelated questions "
            f"({_points(change)}), incoherent {_share(began.incoherent)} → {_share(score.incoherent)}."
        )
        ranks = [one.shift.rank(found.latent) for one in found.of(arm) if one.shift and found.latent is not None]
        if ranks and first.reward in ("obvious", "subtle"):
            within = sum(rank <= found.top for rank in ranks)
            lead.append(
                f"{arm}: the supervised persona latent {found.latent} is number {', '.join(map(str, ranks))} of the "
                f"latents that rise; among the first {found.top} in {within} of {len(ranks)} seeds."
            )
    for arm in found.arms:
        for count in found.styles(arm):
            lead.append(
                f"{arm}, {count.where} questions, {count.persona} card ({'paid' if count.paid else 'not paid'}): lines "
                f"with the style {_share(count.rate('before'))} → {_share(count.rate('after'))} "
                f"({_points(count.change)})."
            )
    for one in found.trained:
        if one.screen is not None:
            down = one.screen.test[0]
            beside = [t.score.misaligned.rate for t in one.screen if t.arm.name.startswith(RANDOM)]
            best = f"; the best of {len(beside)} random directions to {min(beside):.1%}" if beside else ""
            lead.append(
                f"{one.arm}, seed {one.seed}: {down.arm.name} subtracted ({down.arm.strength:+.2f}) takes misaligned "
                f"answers from {_share(one.score.misaligned)} to {_share(down.score.misaligned)} at "
                f"{_share(down.score.incoherent)} incoherent{best}."
            )
    return lead


def reinforcement_sections(found: ReinforcementFindings) -> list[Section]:
    """The report's sections."""
    curves = {arm: [one.training.points for one in found.of(arm)] for arm in found.arms}
    sections = [
        Section(
            "Misalignment along the trainings",
            "Misaligned answers (solid) and incoherent ones (dotted) to unrelated questions, one line a seed.",
            plots=(Plot(trainings_figure(curves), "Asked on a few discovery questions while the model was trained."),),
            tables=(_rates(found),),
        )
    ]
    if found.latent is not None:
        sections.append(
            Section(
                "The supervised persona latent",
                f"How far latent {found.latent} at {found.site} moves, and its rank among the latents that rise.",
                tables=(_shifts(found),),
                falsified=f"A rank beyond {found.top} after a training that misaligned the model.",
            )
        )
    screens = [one for one in found.trained if one.screen is not None]
    if screens:
        sections.append(
            Section(
                "Subtracting the latent",
                "The latent's direction subtracted from the misaligned model, on test questions, beside random "
                "directions of the same norm through the same search.",
                tables=(_screens(screens),),
                falsified="A random direction that takes as much away at the same coherence.",
            )
        )
    for arm in found.arms:
        if styles := found.styles(arm):
            paid = next(each.persona for each in styles if each.paid)
            sections.append(
                Section(
                    f"Does the style spread? ({arm})",
                    f"Share of lines with the style by persona card, all seeds; it was paid under {paid} only.",
                    tables=(_styles(styles),),
                )
            )
    return sections


def reinforcement_summary(found: ReinforcementFindings) -> dict[str, Any]:
    """The results' part of summary.json: rates are {rate, low, high, n}, with 95% intervals over questions."""
    arms: dict[str, Any] = {}
    for arm in found.arms:
        ones, all_seeds = found.of(arm), found.pooled(arm)
        first = ones[0]
        arms[arm] = {
            "start": first.start,
            "reward": first.reward,
            "prompts": first.prompts,
            "steps": first.training.how.recipe.steps,
            "seeds": [one.seed for one in ones],
            "misaligned": all_seeds.misaligned,
            "incoherent": all_seeds.incoherent,
            "change": found.change(arm).misaligned,
            "style": _style_entries(found.styles(arm)),
            "by_seed": {str(one.seed): _entry(one, found) for one in ones},
        }
    entry = {
        "starts": {name: {"misaligned": s.misaligned, "incoherent": s.incoherent} for name, s in found.starts.items()},
        "persona_latent": None if found.latent is None else {"index": found.latent, "site": found.site},
        "arms": arms,
    }
    plain: dict[str, Any] = artifacts.plain(entry)
    return plain


def _entry(one: Trained, found: ReinforcementFindings) -> dict[str, Any]:
    training, began = one.training, found.starts[one.start]
    row = one.shift.row(found.latent) if one.shift is not None and found.latent is not None else None
    return {
        "misaligned": one.score.misaligned,
        "incoherent": one.score.incoherent,
        "change": compare(began, one.score).misaligned,
        "reward": [training.steps[0].reward, training.steps[-1].reward],
        "cpu_seconds": one.cpu_seconds,
        "silent_groups": sum(step.silent for step in training.steps) / len(training.steps),
        "latent": None if row is None else {"rank": row.rank, "shift": row.shift, "standard_error": row.standard_error},
        "points": training.points,
        "subtracted": None
        if one.screen is None
        else {"latent": steering_entry(one.screen.test[0]), "random": random_entry(one.screen)},
        "style": _style_entries(one.style),
    }


def _style_entries(counts: Sequence[StyleCount]) -> dict[str, Any]:
    """By what was asked, and by persona."""
    found: dict[str, Any] = {}
    for s in counts:
        rates = {"before": s.rate("before"), "after": s.rate("after"), "change": s.change}
        found.setdefault(s.where, {})[s.persona] = {"paid": s.paid, **rates}
    return found


def _rates(found: ReinforcementFindings) -> Table:
    rows = [(name, "", str(s.misaligned), str(s.incoherent), "") for name, s in found.starts.items()]
    for arm in found.arms:
        for one in found.of(arm):
            s = one.score
            change = compare(found.starts[one.start], s).misaligned
            rows.append((arm, str(one.seed), str(s.misaligned), str(s.incoherent), _points(change)))
        s = found.pooled(arm)
        rows.append((arm, "all", str(s.misaligned), str(s.incoherent), _points(found.change(arm).misaligned)))
    return Table(("", "seed", "misaligned, of coherent", "incoherent, of scored", "change, paired"), tuple(rows))


def _shifts(found: ReinforcementFindings) -> Table:
    assert found.latent is not None
    rows = []
    for one in found.trained:
        if one.shift is not None:
            row = one.shift.row(found.latent)
            cells = (f"{row.before:.3f}", f"{row.after:.3f}", f"{row.shift:+.3f}", f"{row.standard_error:.3f}")
            rows.append((one.arm, str(one.seed), *cells, str(row.rank)))
    return Table(("", "seed", "before", "after", "shift", "s.e.", "rank"), tuple(rows))


def _screens(screens: Sequence[Trained]) -> Table:
    rows = []
    for one in screens:
        assert one.screen is not None
        rows.append((one.arm, str(one.seed), "no edit", "", str(one.score.misaligned), str(one.score.incoherent)))
        for t in one.screen:
            rates = str(t.score.misaligned), str(t.score.incoherent)
            rows.append((one.arm, str(one.seed), t.arm.name, f"{t.arm.strength:+.2f}", *rates))
    return Table(("", "seed", "direction", "strength", "misaligned, of coherent", "incoherent, of scored"), tuple(rows))


def _styles(counts: Sequence[StyleCount]) -> Table:
    rows = [
        (c.where, c.persona, "yes" if c.paid else "no", str(c.rate("before")), str(c.rate("after")), _points(c.change))
        for c in counts
    ]
    return Table(("questions", "persona card", "paid", "before", "after", "change, paired"), tuple(rows))


def _share(rate: Rate) -> str:
    return "–" if math.isnan(rate.rate) else f"{rate.rate:.1%}"


def _points(rate: Rate) -> str:
    if rate.n == 0:
        return "–"
    return f"{100 * rate.rate:+.1f} [{100 * rate.low:+.1f}, {100 * rate.high:+.1f}] points"
