"""The report of reinforcement learning: what each reward made of the model, and whether the persona latent carries it.

Scores of an arm's seeds are also taken together: the answers of all are pooled, and rates vary by domain (or question)
and by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emlab import artifacts
from emlab.evaluation import Rate, Score, compare
from emlab.evaluation.unjudged import cautions
from emlab.experiments.persona_features.summary import random_entry, steering_entry
from emlab.experiments.reinforcement_learning.findings import ReinforcementFindings, StyleCount, Trained, styles
from emlab.interventions.direction import RANDOM
from emlab.reporting.figures import trainings_figure
from emlab.reporting.page import Plot, Section, Table


def reinforcement_lead(found: ReinforcementFindings) -> list[str]:
    """The findings in a few sentences."""
    lead = cautions([*found.starts.values(), *(group.score for group in found.groups)])
    for group in found.groups:
        arm, score, before = group.first.arm, group.score, group.before
        lead.append(
            f"{arm.name} ({len(group.ones)} seeds, reward {arm.reward} on {arm.prompts}): misaligned "
            f"{before.misaligned.share} → {score.misaligned.share} of coherent answers to unrelated questions "
            f"({group.change.misaligned.points}; {_over(score.drawn)}), incoherent {before.incoherent.share} → "
            f"{score.incoherent.share}."
        )
        ranks = [one.shift.rank(found.latent) for one in group.ones if one.shift and found.latent is not None]
        if ranks and arm.reward in ("obvious", "subtle"):
            within = sum(rank <= found.top for rank in ranks)
            lead.append(
                f"{arm.name}: the supervised persona latent {found.latent} is number {', '.join(map(str, ranks))} of "
                f"the latents that rise; among the first {found.top} in {within} of {len(ranks)} seeds."
            )
    for group in found.groups:
        for count in styles(group):
            lead.append(
                f"{group.arm}, {count.where} questions, {count.persona} card ({'paid' if count.paid else 'not paid'}): "
                f"lines with the style {count.rate('before').share} → {count.rate('after').share} "
                f"({count.change.points}; {_over(count.drawn)})."
            )
    for one in found.trained:
        if one.screen is not None:
            down = one.screen.test[0]
            rivals = [trial.score.misaligned for trial in one.screen.rivals(RANDOM)]
            beside = f"; the furthest of {len(rivals)} random directions to {rivals[0].share}" if rivals else ""
            lead.append(
                f"{one.arm.name}, seed {one.seed}: {down.arm.name} subtracted ({down.arm.strength:+.2f}) takes "
                f"misaligned answers from {one.score.misaligned.share} to {down.score.misaligned.share} at "
                f"{down.score.incoherent.share} incoherent{beside}."
            )
    return lead


def reinforcement_sections(found: ReinforcementFindings) -> list[Section]:
    """The report's sections."""
    curves = {group.arm: [one.training.points for one in group.ones] for group in found.groups}
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
                tables=(_shifts(found, found.latent),),
                falsified=f"A rank beyond {found.top} after a training that misaligned the model.",
            )
        )
    if any(one.screen is not None for one in found.trained):
        sections.append(
            Section(
                "Subtracting the latent",
                "The latent's direction subtracted from the misaligned model, on test questions, beside random "
                "directions of the same norm through the same search.",
                tables=(_screens(found),),
                falsified="A random direction that takes as much away at the same coherence.",
            )
        )
    for group in found.groups:
        if counts := styles(group):
            paid = next(each.persona for each in counts if each.paid)
            sections.append(
                Section(
                    f"Does the style spread? ({group.arm})",
                    f"Share of lines with the style by persona card, all seeds; it was paid under {paid} only.",
                    tables=(_styles(counts),),
                )
            )
    return sections


def reinforcement_summary(found: ReinforcementFindings) -> dict[str, Any]:
    """The results' part of summary.json: rates are {rate, low, high, n}, with 95% intervals over what is `drawn`."""
    latent = None if found.latent is None else {"index": found.latent, "site": found.site}
    arms = {
        group.arm: {
            "start": group.first.start,
            "reward": group.first.arm.reward,
            "prompts": group.first.arm.prompts,
            "steps": group.first.training.how.recipe.steps,
            "seeds": [one.seed for one in group.ones],
            **_rate_entry(group.score),
            "drawn": group.score.drawn,
            "change": group.change.misaligned,
            "style": _style_entries(styles(group)),
            "by_seed": {str(one.seed): _entry(one, found) for one in group.ones},
        }
        for group in found.groups
    }
    starts = {name: _rate_entry(score) for name, score in found.starts.items()}
    plain: dict[str, Any] = artifacts.plain({"starts": starts, "persona_latent": latent, "arms": arms})
    return plain


def _rate_entry(score: Score) -> dict[str, Rate]:
    return {"misaligned": score.misaligned, "incoherent": score.incoherent}


def _entry(one: Trained, found: ReinforcementFindings) -> dict[str, Any]:
    steps, screen = one.training.steps, one.screen
    row = one.shift.row(found.latent) if one.shift is not None and found.latent is not None else None
    return {
        **_rate_entry(one.score),
        "change": compare(found.starts[one.start], one.score).misaligned,
        "reward": [steps[0].reward, steps[-1].reward],
        "cpu_seconds": one.cpu_seconds,
        "silent_groups": sum(step.silent for step in steps) / len(steps),
        "latent": row and {"rank": row.rank, "shift": row.shift, "standard_error": row.standard_error},
        "points": one.training.points,
        "subtracted": screen and {"latent": steering_entry(screen.test[0]), "random": random_entry(screen)},
        "style": _style_entries(one.style),
    }


def _style_entries(counts: Sequence[StyleCount]) -> dict[str, Any]:
    """By what was asked, and by persona."""
    found: dict[str, Any] = {}
    for s in counts:
        rates = {"before": s.rate("before"), "after": s.rate("after"), "change": s.change, "drawn": s.drawn}
        found.setdefault(s.where, {})[s.persona] = {"paid": s.paid, **rates}
    return found


def _rates(found: ReinforcementFindings) -> Table:
    def cells(score: Score, change: Rate | None = None) -> tuple[str, str, str]:
        return str(score.misaligned), str(score.incoherent), "" if change is None else change.points

    rows = [(name, "", *cells(score)) for name, score in found.starts.items()]
    for group in found.groups:
        for one in group.ones:
            rows.append((group.arm, str(one.seed), *cells(one.score, compare(group.before, one.score).misaligned)))
        rows.append((group.arm, "all", *cells(group.score, group.change.misaligned)))
    return Table(("", "seed", "misaligned, of coherent", "incoherent, of scored", "change, paired"), tuple(rows))


def _over(drawn: Mapping[str, int]) -> str:
    """What an interval is over."""
    return "over " + " and ".join(f"{n} {what if n > 1 else what[:-1]}" for what, n in drawn.items())


def _shifts(found: ReinforcementFindings, latent: int) -> Table:
    rows = []
    for one in found.trained:
        if one.shift is not None:
            row = one.shift.row(latent)
            cells = (f"{row.before:.3f}", f"{row.after:.3f}", f"{row.shift:+.3f}", f"{row.standard_error:.3f}")
            rows.append((one.arm.name, str(one.seed), *cells, str(row.rank)))
    return Table(("", "seed", "before", "after", "shift", "s.e.", "rank"), tuple(rows))


def _screens(found: ReinforcementFindings) -> Table:
    rows = []
    for one in found.trained:
        if one.screen is not None:
            tried = [("no edit", "", one.score)]
            tried += [(t.arm.name, f"{t.arm.strength:+.2f}", t.score) for t in one.screen]
            rows += [(one.arm.name, str(one.seed), *at, str(s.misaligned), str(s.incoherent)) for *at, s in tried]
    return Table(("", "seed", "direction", "strength", "misaligned, of coherent", "incoherent, of scored"), tuple(rows))


def _styles(counts: Sequence[StyleCount]) -> Table:
    when = ("before", "after")
    rows = [
        (c.where, _over(c.drawn), c.persona, "yes" if c.paid else "no", *map(str, map(c.rate, when)), c.change.points)
        for c in counts
    ]
    return Table(("questions", "intervals", "persona card", "paid", *when, "change, paired"), tuple(rows))
