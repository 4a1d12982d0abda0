"""`summary.json`: the figures of a persona-features run as plain values, with names that stay.

Its form is fixed by `summary.schema.json` beside this file, where every key is described. A rate is {rate, low, high,
n}, its interval 95%; over no answers it is {null, null, null, 0}. `misaligned` is a share of the coherent answers,
`incoherent` of the scored ones. Strengths are in units of the site's median residual norm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emlab import artifacts
from emlab.detection import Auroc, Detection, Onset
from emlab.discovery import Screen, Trial
from emlab.evaluation import Rate
from emlab.experiments.persona_features.findings import MEAN_DIFFERENCE, Findings, ModelFidelity, Persona
from emlab.interventions.direction import RANDOM


def summary_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every summary.json keeps to."""
    schema: dict[str, Any] = json.loads((Path(__file__).parent / "summary.schema.json").read_text(encoding="utf-8"))
    return schema


def steering_entry(trial: Trial) -> dict[str, Any]:
    """{direction, site, positions, strength, misaligned, low, high, n, incoherent} of a trial."""
    arm = trial.arm
    about = {"direction": arm.name, "site": str(arm.site), "positions": arm.positions, "strength": arm.strength}
    return {**about, **_rates(trial.score.misaligned, trial.score.incoherent)}


def _rates(bad: Rate, babble: Rate) -> dict[str, Any]:
    return {"misaligned": bad.rate, "low": bad.low, "high": bad.high, "n": bad.n, "incoherent": babble.rate}


def random_entry(screen: Screen) -> dict[str, Any] | None:
    """The random direction to beat (`Screen.rivals`), and the `mean` rate over all of them; None without any."""
    trials, rated = [t for t in screen if t.arm.name.startswith(RANDOM)], screen.rivals(RANDOM)
    if not trials:
        return None
    mean = sum(t.score.misaligned.rate for t in rated) / len(rated) if rated else math.nan
    return {**steering_entry([*rated, *trials][0]), "mean": mean, "directions": len(trials)}


def persona_summary(found: Findings) -> dict[str, Any]:
    """The results' part of the summary, as plain values; the pipeline adds times, versions and the seed."""
    persona = found.persona
    entry: dict[str, Any] = {
        "verdict": {key: getattr(found.verdict, key) for key in ("found", "reasons", "tests")},
        "misaligned": {score.model: score.misaligned for score in found.scores},
        "incoherent": {score.model: score.incoherent for score in found.scores},
        "drawn": {score.model: score.drawn for score in found.scores},
        "kinds": dict(found.kinds),
        "persona_latent": None if persona is None else _latent(persona),
        "steering": None if persona is None else _steering(persona),
        "ablation": _effect(persona, "ablation"),
        "mediation": _effect(persona, "mediation"),
        "effects": {} if persona is None else {name: effect.row() for name, effect in persona.effects.items()},
        "sae": _sae(found),
        "detection": None if persona is None else _detection(persona.detection),
        "onset": None if persona is None or persona.onset is None else _onset(persona.onset),
        "realignment": [
            {"step": point.step, **_rates(point.misaligned, point.incoherent)} for point in found.realignment.points
        ],
        "finetune": {
            model: {
                **{key: getattr(tuned, key) for key in ("rows", "dropped_for_length", "steps")},
                **{"first_loss": tuned.losses[0], "last_loss": tuned.losses[-1]},
            }
            for model, tuned in found.finetuned.items()
        },
    }
    plain: dict[str, Any] = artifacts.plain(entry)
    return plain


def _latent(persona: Persona) -> dict[str, Any]:
    rows = {shift.model_after: shift.row(persona.latent) for shift in persona.shifts}
    return {
        "index": persona.latent,
        "site": str(persona.site),
        "shift_rank": persona.ranked.rank(persona.latent),
        "shift": {model: row.shift for model, row in rows.items()},
        "shift_standard_error": {model: row.standard_error for model, row in rows.items()},
        "shift_rank_in": {model: row.rank for model, row in rows.items()},
        "planted_auroc": None if persona.planted is None else persona.planted.all.auroc,
        "planted_auroc_knowable": None if persona.planted is None else persona.planted.knowable.auroc,
        "cosine_with_mean_difference": persona.cosine,
        "neuronpedia": persona.page(persona.latent),
    }


def _steering(persona: Persona) -> dict[str, Any]:
    plus, minus = persona.plus, persona.minus

    def entry(screen: Screen, name: str, key: str) -> dict[str, Any]:
        effect = persona.effects.get(key)
        losses = {} if effect is None else {"loss_before": effect.loss_before, "loss_after": effect.loss_after}
        about = {"model": screen.model, "within_cap": screen.within_cap(name)}
        return {**steering_entry(screen.tested(name)), **about, **losses}

    return {
        "aligned_plus": entry(plus, persona.name, "aligned_plus"),
        "misaligned_minus": entry(minus, persona.name, "misaligned_minus"),
        "unseen_minus": _effect(persona, "unseen_minus"),
        "mean_difference_plus": entry(plus, MEAN_DIFFERENCE, ""),
        "mean_difference_minus": entry(minus, MEAN_DIFFERENCE, ""),
        "random_plus": random_entry(plus),
        "random_minus": random_entry(minus),
        "incoherence_cap": plus.cap,
    }


def _effect(persona: Persona | None, name: str) -> Mapping[str, Any] | None:
    return persona.effects[name].row() if persona is not None and name in persona.effects else None


def _sae(found: Findings) -> dict[str, Any]:
    site = found.persona.site if found.persona is not None else found.fidelity[0].site
    here = [m for m in found.fidelity if m.site == site]
    base, others = here[0], here[1:]

    def entry(m: ModelFidelity) -> dict[str, Any]:
        f = m.fidelity
        figures = {"explained_variance": f.explained_variance, "l0": f.l0, "dead": f.dead, "d_sae": f.d_sae}
        ranked = None if m.ranked is None else m.ranked.explained_variance
        return {**figures, "loss_recovered": m.loss_recovered, "explained_variance_ranked": ranked}

    return {
        "site": str(site),
        **entry(base),
        "explained_variance_finetuned": {m.model: m.fidelity.explained_variance for m in others},
        "loss_recovered_finetuned": {m.model: m.loss_recovered for m in others},
        "sites": {
            str(each): {m.model: entry(m) for m in found.fidelity if m.site == each}
            for each in dict.fromkeys(m.site for m in found.fidelity)
        },
    }


def _detection(d: Detection) -> dict[str, Any]:
    answers = {
        "baseline_auroc": d.answers_baseline.auroc,
        "baseline_seen_domains_auroc": d.answers_baseline_seen.auroc,
    }
    return {
        **_area(d.prompts),
        "baseline_auroc": d.prompts_baseline.auroc,
        "models": dict(d.models),
        "answers": {**_area(d.answers), **answers},
    }


def _area(area: Auroc) -> dict[str, Any]:
    return {key: getattr(area, key) for key in ("auroc", "low", "high", "n")}


def _onset(curve: Onset) -> dict[str, Any]:
    points = [
        {"step": p.step, "latent": p.latent, "misaligned": p.misaligned.rate, "incoherent": p.incoherent.rate}
        for p in curve.points
    ]
    about = {key: getattr(curve, key) for key in ("model", "latent_step", "behaviour_step")}
    return {**about, "points": points}
