"""`summary.json`: the figures of a persona-features run as plain values, with names that stay.

A rate is {rate, low, high, n}, its interval 95%; over no answers it is {null, null, null, 0}. `misaligned` is a share
of the coherent answers, `incoherent` of all. Strengths are in units of the site's median residual norm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from emlab import artifacts
from emlab.discovery import Screen, Trial
from emlab.reporting.findings import MEAN_DIFFERENCE, Findings


def steering_entry(trial: Trial) -> Mapping[str, Any]:
    """{direction, strength, misaligned, low, high, n, incoherent} of a trial."""
    bad = trial.score.misaligned
    about = {"direction": trial.arm.name, "strength": trial.arm.strength}
    rates = {"misaligned": bad.rate, "low": bad.low, "high": bad.high, "n": bad.n}
    return {**about, **rates, "incoherent": trial.score.incoherent.rate}


def random_entry(screen: Screen) -> Mapping[str, Any] | None:
    """The random direction that does most on the test questions, and the `mean` over all of them; None without any."""
    trials = Findings.random(screen)
    if not trials:
        return None
    sign = -1 if screen.toward == "misaligned" else 1
    rated = [trial for trial in trials if trial.score.misaligned.n]
    best = min(rated or trials, key=lambda t: sign * t.score.misaligned.rate)
    mean = sum(t.score.misaligned.rate for t in rated) / len(rated) if rated else math.nan
    return {**steering_entry(best), "mean": mean, "directions": len(trials)}


def persona_summary(found: Findings) -> dict[str, Any]:
    """The results' part of the summary, as plain values; the pipeline adds times, versions and the seed."""
    rows = {shift.model_after: shift.row(found.latent) for shift in found.shifts}
    plus, minus = found.plus, found.minus
    against = {"model": minus.model}
    entry: dict[str, Any] = {
        "misaligned": {score.model: score.misaligned for score in found.scores},
        "incoherent": {score.model: score.incoherent for score in found.scores},
        "persona_latent": {
            "index": found.latent,
            "site": str(found.ranked.site),
            "shift_rank": found.ranked.rank(found.latent),
            "shift": {model: row.shift for model, row in rows.items()},
            "shift_standard_error": {model: row.standard_error for model, row in rows.items()},
            "shift_rank_in": {model: row.rank for model, row in rows.items()},
        },
        "steering": {
            "aligned_plus": {**steering_entry(plus.tested(found.name)), "within_cap": plus.within_cap(found.name)},
            "misaligned_minus": {
                **steering_entry(minus.tested(found.name)),
                "within_cap": minus.within_cap(found.name),
                **against,
            },
            "mean_difference_plus": steering_entry(plus.tested(MEAN_DIFFERENCE)),
            "mean_difference_minus": {**steering_entry(minus.tested(MEAN_DIFFERENCE)), **against},
            "random_plus": random_entry(plus),
            "random_minus": random_entry(minus),
            "positions": plus.positions,
            "incoherence_cap": plus.cap,
        },
        "sae": {
            "explained_variance": found.fidelity.explained_variance,
            "l0": found.fidelity.l0,
            "dead": found.fidelity.dead,
            "d_sae": found.fidelity.d_sae,
            "explained_variance_finetuned": {
                model: fidelity.explained_variance for model, fidelity in found.fidelity_elsewhere.items()
            },
        },
        "finetune": {
            model: {
                "rows": tuned.rows,
                "dropped_for_length": tuned.dropped_for_length,
                "steps": tuned.steps,
                "first_loss": tuned.losses[0],
                "last_loss": tuned.losses[-1],
            }
            for model, tuned in found.finetuned.items()
        },
    }
    plain: dict[str, Any] = artifacts.plain(entry)
    return plain
