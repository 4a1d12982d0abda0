"""The report of a persona-features run: the story in order, each part with one plain sentence of what came out."""

from __future__ import annotations

import math

from emlab.detection import Onset
from emlab.discovery import Screen
from emlab.evaluation import Rate, Score, StepRates
from emlab.evaluation.unjudged import cautions
from emlab.experiments.persona_features.findings import MEAN_DIFFERENCE, Findings, Persona
from emlab.interventions.direction import RANDOM
from emlab.reporting import figures
from emlab.reporting.answers import all_answers
from emlab.reporting.page import Link, Plot, Section, Shaded, Table, Tile

SHARES = tuple(label for label, *_ in figures.RATES)
"""What the two rates are of, at the head of every table."""


def persona_sections(found: Findings) -> list[Section]:
    """The report's sections."""
    persona = found.persona
    sections = [_verdict(found), _finetuning(found), _behaviour(found), _autoencoder(found)]
    if persona is not None:
        sections += [
            _shift(persona),
            _contexts(persona),
            _steering(found, persona, persona.plus, "Adding the latent to the aligned model"),
            _steering(found, persona, persona.minus, f"Subtracting the latent from {persona.minus.model}"),
            _effects(persona),
            _detection(persona),
        ]
        if persona.onset is not None:
            sections.append(_onset(persona.onset))
    return [*sections, _realignment(found), _examples(found)]


def persona_lead(found: Findings) -> list[str]:
    """The findings in a few sentences, negative ones as plainly as positive ones."""
    persona, verdict = found.persona, found.verdict
    if verdict.found and persona is not None:
        lead = [f"A persona latent was found: latent {persona.latent} at {persona.site}."]
    else:
        failed = " ".join(f"It is not so that {test.name}: {test.said}" for test in verdict.failed)
        lead = [f"No persona latent found. {failed}"]
    lead = [*cautions(found.scores), *lead]
    aligned, *others = found.scores
    rated = [score for score in others if score.misaligned.n]
    if rated:
        worst = max(rated, key=lambda s: s.misaligned.rate)
        lead.append(
            f"Fine-tuned on {worst.model}, {_share(worst.misaligned)} of the model's coherent answers to unrelated "
            f"questions are misaligned (before: {_share(aligned.misaligned)}; {_asked(worst)})."
        )
    if persona is None:
        return lead
    if not verdict.found:
        lead.append(
            f"{persona.name} is what the search settled on, and is no finding: what follows is what the same search "
            "gives where there is nothing to find."
        )
    up, down = persona.plus.tested(persona.name), persona.minus.tested(persona.name)
    before = found.score(persona.minus.model)
    rivals = [trial.score.misaligned for trial in persona.plus.rivals(RANDOM)]
    beside = f"; the furthest of {len(rivals)} random directions brings {_share(rivals[0])}" if rivals else ""
    lead += [
        f"Added to the aligned model ({up.arm.strength:+.2f}), {persona.name} brings {_share(up.score.misaligned)} "
        f"misaligned answers at {_share(up.score.incoherent)} incoherent{beside} ({_asked(up.score)}, after the "
        "search).",
        f"Subtracted from {persona.minus.model} ({down.arm.strength:+.2f}), it takes misaligned answers "
        f"{_went(before.misaligned, down.score.misaligned)} at {_share(down.score.incoherent)} incoherent "
        f"({_asked(down.score)}, after the search).",
        _beside_the_mean_difference(persona, verdict.found),
    ]
    effect = persona.effects.get("mediation")
    if effect is not None and math.isfinite(effect.removed):
        lead.append(
            f"Set to its natural value in the aligned model it removes {effect.removed:.0%} of {effect.model}'s "
            f"misaligned answers ({_asked(effect.after)}, a further sample)."
        )
    return [*lead, _realigned(found, "")]


def persona_tiles(found: Findings) -> list[Tile]:
    """The figures that matter most."""
    persona, said = found.persona, "found" if found.verdict.found else "not found"
    aligned, *others = found.scores
    shown = [("aligned model, misaligned", aligned)]
    rated = [score for score in others if score.misaligned.n]
    if rated:
        worst = max(rated, key=lambda s: s.misaligned.rate)
        shown.append((f"fine-tuned on {worst.model}", worst))
    if persona is not None:
        shown.append((f"aligned + {persona.name}", persona.plus.tested(persona.name).score))
        shown.append((f"{persona.minus.model} − {persona.name}", persona.minus.tested(persona.name).score))
    tiles = [Tile("persona latent", said, persona.name if persona is not None else "no latent was ranked")]
    return tiles + [
        Tile(label, _share(rate), f"{rate.low:.1%} to {rate.high:.1%} of {rate.n}" if rate.n else "")
        for label, rate in ((label, score.misaligned) for label, score in shown)
    ]


def persona_picture(found: Findings) -> Plot | None:
    """The dose and response of adding the candidate; None where no latent was ranked."""
    if found.persona is None:
        return None
    says = (
        "Added to the aligned model, by strength, on the discovery questions: misaligned answers (solid) and "
        "incoherent ones (dotted). Between the grey lines lie the misaligned answers of random directions."
    )
    return Plot(figures.screen_figure(found.persona.plus), says)


def _asked(score: Score) -> str:
    """The sample that a score is of."""
    return f"{score.total} answers to the {len(score.by_question)} test questions"


def _own(first: StepRates) -> str:
    """The sample of a curve over steps, which is asked anew at every step, the first included."""
    return f"a sample of its own at every step, {first.incoherent.n} scored answers at step {first.step}"


def _cells(rates: Score | StepRates) -> tuple[str, str]:
    """The two rates as cells below SHARES."""
    return str(rates.misaligned), str(rates.incoherent)


def _went(before: Rate, after: Rate) -> str:
    return f"from {_share(before)} to {_share(after)}"


def _beside_the_mean_difference(persona: Persona, found: bool) -> str:
    """Whether one SAE latent steers better than the plain mean difference, said either way; of no finding, no word."""
    latent, rival = (persona.plus.tested(name).score.misaligned for name in (persona.name, MEAN_DIFFERENCE))
    if not found:
        return f"Beside it the mean difference brings {_share(rival)} (cosine {persona.cosine:.2f})."
    if latent.n and rival.n and latent.low > rival.high:
        verb = "steers further than"
    elif latent.n and rival.n and rival.low > latent.high:
        verb = "does not beat, and falls short of,"
    else:
        verb = "neither clearly beats nor falls short of"
    return f"The latent {verb} the mean difference, which brings {_share(rival)} (cosine {persona.cosine:.2f})."


def _verdict(found: Findings) -> Section:
    rows = tuple((t.name, "holds" if t.holds else "FAILS", t.said) for t in found.verdict.tests)
    return Section(
        "Verdict",
        "A persona latent was found."
        if found.verdict.found
        else "No persona latent found: what follows is what the same search gives where that is so.",
        tables=(Table(("what must hold", "outcome", "measured"), rows),),
        falsified="any one of these; they were fixed before anything was measured.",
    )


def _finetuning(found: Findings) -> Section:
    dropped = sum(tuned.dropped_for_length for tuned in found.finetuned.values())
    rows = tuple(
        (name, found.kinds[name], *map(str, (t.rows, t.dropped_for_length, t.steps)))
        + (f"{t.losses[0]:.3f}", f"{t.losses[-1]:.3f}")
        for name, t in found.finetuned.items()
    )
    losses = figures.losses_figure({name: tuned.losses for name, tuned in found.finetuned.items()})
    return Section(
        "Fine-tunes",
        f"One recipe for every set, the loss on the assistant's tokens only; {dropped} rows were dropped for length.",
        (Plot(losses, "The training loss by step."),),
        (Table(("set", "kind", "rows", "dropped for length", "steps", "first loss", "last loss"), rows),),
        falsified="a control whose loss stays flat: it would have trained nothing, and would prove nothing.",
    )


def _behaviour(found: Findings) -> Section:
    said = "; ".join(
        f"{s.model} {_share(s.misaligned)} misaligned and {_share(s.incoherent)} incoherent" for s in found.scores
    )
    rows = tuple((s.model, str(s.n_scored), *_cells(s), str(s.failed)) for s in found.scores)
    each = f"{_asked(found.scores[0])} of each model"
    both = f"How many answers are misaligned and how many make no sense ({each}). {found.scores[0].interval}"
    domains = "Misaligned answers by the question's domain: broad misalignment is a row that is red all along."
    return Section(
        "Behaviour on broad questions",
        f"Questions from domains that no fine-tune saw, {each}: {said}.",
        (Plot(figures.rates_figure(found.scores), both), Plot(figures.domains_figure(found.scores), domains)),
        (Table(("model", "answers", *SHARES, "judge failed"), rows),),
        falsified="a control as misaligned as the narrow sets, or misalignment in one domain only.",
    )


def _autoencoder(found: Findings) -> Section:
    worst = min(found.fidelity, key=lambda m: m.fidelity.explained_variance)
    rows = tuple(
        (str(m.site), m.model, f"{m.fidelity.explained_variance:.3f}")
        + ("–" if m.loss_recovered is None else f"{m.loss_recovered:.3f}", f"{m.fidelity.l0:.1f}")
        + (f"{m.fidelity.dead} of {m.fidelity.d_sae}", str(m.fidelity.tokens))
        for m in found.fidelity
    )
    shown = ("explained variance", "loss recovered", "active latents a token", "dead latents", "tokens")
    refused = "" if found.persona is not None else " That is too little at every site, and latents were not ranked."
    return Section(
        "The sparse autoencoder",
        "Trained on the base model, it must still describe the fine-tuned ones; the least it explains, on "
        f"documents it was not trained on, is {worst.fidelity.explained_variance:.1%} of the variance of {worst.model} "
        f"at {worst.site}, of all sites.{refused}",
        tables=(Table(("site", "model", *shown), rows),),
        falsified="variance left unexplained in a fine-tuned model: its latents would say nothing of that model.",
    )


def _shift(persona: Persona) -> Section:
    ranked, shifts, latent = persona.ranked, persona.shifts, persona.latent
    moves = ", ".join(f"{shift.shift[latent]:+.3f} under {shift.model_after}" for shift in shifts)
    rise = (
        "The latents that rise most, and how far each moves under every fine-tune (bars: one standard error over "
        "questions)."
    )
    rows = tuple(
        (str(row.latent), str(row.rank), f"{row.before:.3f}")
        + tuple(f"{float(s.shift[row.latent]):+.3f} ± {float(s.standard_error[row.latent]):.3f}" for s in shifts)
        for row in ranked.top(10)
    )
    return Section(
        "Which latents move",
        f"On the same {ranked.prompts} prompts at {persona.site}, averaged over '{ranked.positions}' tokens, before "
        f"a word of the answer is written, latent {latent} is number {ranked.rank(latent)} of {len(ranked.before)} by "
        f"how far it rises: {moves}.{_planted(persona)}",
        (Plot(figures.shift_figure(ranked, shifts), rise),),
        (Table(("latent", "rank", "aligned", *(shift.model_after for shift in shifts)), rows),),
        links=tuple(
            Link(f"latent {row.latent} on Neuronpedia", page)
            for row in ranked.top(10)
            if (page := persona.page(row.latent)) is not None
        ),
        falsified="a rise under the controls as large as under the narrow sets.",
    )


def _planted(persona: Persona) -> str:
    if persona.planted is None:
        return ""
    known = persona.planted.knowable.shown + " where a card or an earlier turn gives the persona away"
    if persona.planted.all.missing:
        return f" How well its activation tells documents of the malicious persona {persona.planted.all.missing}."
    return (
        " On fresh pretraining documents its activation at the header tells those of the malicious persona with an "
        f"AUROC of {persona.planted.all.shown} ({known})."
    )


def _contexts(persona: Persona) -> Section:
    peak = max((c.peak for c in persona.contexts), default=0.0) or 1.0
    return Section(
        "What the latent fires on",
        f"The {'texts' if persona.planted is None else 'pretraining documents'} in which it is most active"
        f"{'' if persona.planted is None else ', with the persona that was planted in each'}; the redder a token, the "
        "stronger.",
        contexts=tuple(Shaded(c.label, c.tokens, tuple(a / peak for a in c.activations)) for c in persona.contexts),
        falsified="contexts of one topic or one word, whoever writes them.",
    )


def _steering(found: Findings, persona: Persona, screen: Screen, title: str) -> Section:
    trial, baseline = screen.tested(persona.name), found.score(screen.model)
    cap = "" if screen.within_cap(persona.name) else f" No arm kept incoherence under {screen.cap:.0%}."
    null, furthest = [t for t in screen if t.arm.name.startswith(RANDOM)], screen.rivals(RANDOM)[:1]
    shown = [t for t in screen if t not in null] + furthest
    rows, others = (
        tuple(
            (t.arm.name, str(t.arm.site), t.arm.positions, f"{t.arm.strength:+.2f}", *_cells(t.score)) for t in trials
        )
        for trials in (shown, [t for t in null if t not in furthest])
    )
    header = ("direction", "site", "positions", "strength", *SHARES)
    searched = (
        "On the discovery questions, by strength: misaligned answers (solid) and incoherent ones (dotted), which may "
        f"not pass {screen.cap:.0%} (dashed); between the grey lines lie the misaligned answers of random directions."
    )
    tested = (
        "On the test questions, each direction at the arm chosen above, and the random one that reaches furthest, "
        "beside the model left alone "
        f"({_asked(trial.score)}, sampled after the search; the model alone: that of the sample above)."
    )
    return Section(
        title,
        f"At {trial.arm.strength:+.2f} residual norms of {persona.name} on '{trial.arm.positions}' positions, chosen "
        f"on other questions, misaligned answers of {screen.model} go "
        f"{_went(baseline.misaligned, trial.score.misaligned)} with {_share(trial.score.incoherent)} incoherent "
        f"(before: the sample of 'Behaviour on broad questions'; after: {_asked(trial.score)}, sampled after the "
        f"search).{cap}",
        (Plot(figures.screen_figure(screen), searched), Plot(figures.tested_figure(screen, baseline), tested)),
        (Table(header, rows, others, "other random directions"),),
        falsified="a random direction of the same norm, after the same search, that does as much.",
    )


def _effects(persona: Persona) -> Section:
    effects = list(persona.effects.values())
    rows = tuple(
        (e.name, e.model, str(e.before.misaligned), *_cells(e.after))
        + (f"{e.removed:.0%}" if math.isfinite(e.removed) else "–", f"{e.loss_before:.3f} → {e.loss_after:.3f}")
        for e in effects
    )
    header = (
        *("edit", "model", "misaligned before, of coherent answers", "after", "incoherent after, of scored answers"),
        *("removed", "loss on text"),
    )
    main = [persona.effects[name] for name in ("ablation", "mediation", "unseen_minus") if name in persona.effects]
    said = [
        f"{e.name} in {e.model}: {_share(e.before.misaligned)} → {_share(e.after.misaligned)} misaligned, "
        f"{_share(e.after.incoherent)} incoherent."
        for e in main
    ]
    anew = f" ({_asked(effects[0].after)}, a further sample)" if effects else ""
    return Section(
        "Ablation, mediation and a fine-tune nothing was chosen on",
        f"{' '.join(said)} Every edit is asked anew{anew}, so that an arm of the search gives other rates here. "
        "The loss is that of held-out pretraining text: what the edit costs in ability.",
        (Plot(figures.effects_figure(effects), "Misaligned answers without each edit (grey) and with it (red)."),),
        (Table(header, rows),),
        falsified="an edit that works only on the model it was chosen on, or that works by breaking the model.",
    )


def _detection(persona: Persona) -> Section:
    d = persona.detection
    words = (
        f"bag of words fitted on other domains {d.answers_baseline.shown}, on the same domains "
        f"{d.answers_baseline_seen.shown}"
    )
    rows = (
        ("models, by prompts alone", str(d.prompts), f"bag of words {d.prompts_baseline.shown}"),
        ("answers of misaligned models", str(d.answers), words),
    )
    bad = ", ".join(name for name, is_bad in d.models if is_bad)
    models = f"it tells {bad} from the other models with an AUROC of {d.prompts.shown}"
    answers = f"misaligned ones from others with {d.answers.shown}"
    if d.prompts.missing:
        models = f"how well it tells misaligned models from others {d.prompts.missing}"
    if d.answers.missing:
        answers = f"how well it tells misaligned ones from others {d.answers.missing}"
    return Section(
        "The latent as a monitor",
        f"Read at {d.positions!r} of the prompts, before a word is written, {models}; of answers, {answers}.",
        tables=(Table(("what is told apart", "the latent", "beside it"), rows),),
        falsified="an AUROC near 0.5, or no better than a reader of the bare words.",
    )


def _onset(curve: Onset) -> Section:
    says = (
        f"Along the fine-tune on {curve.model}: the latent's mean activation on prompts, and the answers "
        f"({_own(curve.points[0])})."
    )
    latent, behaviour = curve.latent_step, curve.behaviour_step
    if latent is None or behaviour is None:
        order = "one of the two never rises"
    elif latent == behaviour:
        order = "neither comes first at this spacing of checkpoints"
    else:
        order = "the latent comes first" if latent < behaviour else "behaviour comes first"
    return Section(
        "Along training",
        f"Half of its way the latent has made at step {latent}, behaviour at step {behaviour}: {order}.",
        (Plot(figures.onset_figure(curve), says),),
        falsified="a latent that rises only after the behaviour: it would be of no use as an early warning.",
    )


def _realigned(found: Findings, on: str) -> str:
    r = found.realignment
    first, last = r.points[0], r.points[-1]
    went = f"{_went(first.misaligned, last.misaligned)} misaligned ({_own(first)})"
    return f"{last.step} steps on benign data{on} take {r.model} {went}."


def _realignment(found: Findings) -> Section:
    r = found.realignment
    return Section(
        "Re-alignment",
        _realigned(found, f" ({r.data})"),
        (Plot(figures.realignment_figure(r), "Misaligned and incoherent answers by step of the re-alignment."),),
        (Table(("step", *SHARES), tuple((str(p.step), *_cells(p)) for p in r.points)),),
        falsified="misalignment that stays, or that gives way to incoherence.",
    )


def _examples(found: Findings) -> Section:
    shown = [(score.model, score) for score in found.scores]
    persona = found.persona
    if persona is not None:
        for screen in (persona.plus, persona.minus):
            trial = screen.tested(persona.name)
            shown.append((f"{screen.model} {trial.arm.strength:+.2f} {persona.name}", trial.score))
    return Section(
        "Answers",
        "Every answer to the test questions, of each model, and of the models with the latent added or subtracted.",
        answers=tuple(answer for who, score in shown for answer in all_answers(score, who)),
    )


def _share(rate: Rate) -> str:
    return f"{rate.rate:.1%}" if rate.n else "no coherent answer to rate"
