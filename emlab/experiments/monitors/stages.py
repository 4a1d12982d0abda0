"""The stages of a run of monitors: fine-tunes, fits and tests on prompts and on answers, and monitors at work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch import Tensor

from emlab import artifacts, records
from emlab.detection import (
    ActivationMonitor,
    Calibration,
    Fit,
    LabelledEvidence,
    Latents,
    Skill,
    TextJudge,
    alarm_threshold,
    auroc,
    calibrate,
    cross_fitted,
    fit_bag_of_words,
    fit_latents,
    fit_perplexity,
    fit_probe,
    fit_projection,
    skill,
    watch,
)
from emlab.detection.evidence import labels_of
from emlab.detection.skill import LEAST
from emlab.discovery import spread
from emlab.evaluation import Rate, Rollouts
from emlab.evaluation.judging import Judged, judge
from emlab.experiments.finetuning.tunes import Pair, Tune, Tunes, on_answers
from emlab.experiments.material.fidelity import ask_fidelity
from emlab.experiments.material.levels import over, rate_over
from emlab.experiments.material.models import site_in
from emlab.experiments.material.saes import named_sae
from emlab.experiments.material.sets import domain_of
from emlab.experiments.monitors.report import MonitorFindings, MonitorSkill, Stream, best_inside
from emlab.interventions import Ablate
from emlab.saes import decoder_rows, fitted_site
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.experiments.monitors.config import Config

S = TypeVar("S")

MONITORS, SKILLS = "monitors", "skills.json"
"""In the folder of a stage that tests monitors: those that read activations, and what all are worth."""


class MonitorStages:
    """What all stages of a run share."""

    def __init__(self, config: Config, tunes: Tunes) -> None:
        self.config, self.tunes, self.run, self.judge = config, tunes, tunes.run, tunes.grid.judge
        self.sites = tuple(site_in(text, tunes.start) for text in config.sites)
        self.saes = described_saes(config.sae, tunes, self.sites)
        self.fit_questions, self.test_questions = spread(tunes.grid.discovery, config.questions), tunes.grid.test
        self.seeds: dict[str, int] = {}
        """Of the fine-tunes to test on, by name."""

    def findings(self) -> MonitorFindings:
        """All stages in order."""
        config, run = self.config, self.run
        fit = self.tunes.of(config.fit, config.fit_seeds)
        seeds = tuple(map(config.reported, config.test_seeds))
        test = self.tunes.of(config.test, seeds)
        hard = self.tunes.of([Pair(domain_of(name), (name,), (name,)) for name in config.hard], seeds)
        self.seeds = {tune.name: tune.seed for tune in (*test, *hard)}
        prompts = run.fill("prompts", partial(self._prompts, fit, test, hard), _read_skills)
        answers = run.fill("answers", partial(self._answers, fit, test), _read_skills)
        stream = run.stage("stream", lambda: self._stream(fit, test, best_inside(answers)), Stream) if answers else None
        return MonitorFindings(
            config.model,
            tuple(dict.fromkeys(tune.domain for tune in fit)),
            tuple(dict.fromkeys(tune.domain for tune in test)),
            {tune.name: tune.rate for tune in (*fit, *test, *hard)},
            prompts,
            answers,
            stream,
            config.false_positives,
            over((tune.domain for tune in test), seeds),
        )

    # ------------------------------------------------------------------------------------------------------- stages

    def _prompts(self, fit: Sequence[Tune], test: Sequence[Tune], hard: Sequence[Tune], folder: Path) -> None:
        known = [self.tunes.on_prompts(tune, self.fit_questions, self.sites) for tune in fit]
        unseen, strange = (
            [self.tunes.on_prompts(tune, self.test_questions, self.sites) for tune in part] for part in (test, hard)
        )
        unseen.append(self.tunes.start_on_prompts(self.test_questions, self.sites))
        artifacts.write_json(folder / SKILLS, self._tested(known, unseen, strange, folder, whole=True))

    def _answers(self, fit: Sequence[Tune], test: Sequence[Tune], folder: Path) -> None:
        """Of misaligned fine-tunes: on others there is next to no misaligned answer to be found."""
        known = self._on_answers((tune, self._sampled(tune)) for tune in fit if tune.misaligned)
        unseen = self._on_answers((tune, tune.judged) for tune in test if tune.misaligned)
        parts = [known, unseen, *([c for c in known if c.domain != domain] for domain in {c.domain for c in known})]
        rows: list[MonitorSkill] = []
        if len(unseen) < LEAST:
            self.run.log(
                f"{len(unseen)} misaligned fine-tunes to test on are too few for intervals; give {LEAST} or more"
            )
        elif all(len({bool(label) for case in part for label in case.labels}) == 2 for part in parts):
            rows = self._tested(known, unseen, [], folder, whole=False)
        else:
            self.run.log("too few misaligned or too few aligned answers to fit monitors of answers on")
        artifacts.write_json(folder / SKILLS, rows)

    def _stream(self, fit: Sequence[Tune], test: Sequence[Tune], best: MonitorSkill) -> Stream:
        """The best monitor of answers, its threshold set on whole answers of the fitted domains' controls."""
        site, config = Site.parse(best.site), self.config
        path = self.run.folder / "answers" / MONITORS / f"{best.kind}.safetensors"
        monitor = ActivationMonitor.load(path, self.saes.get(site))
        settings: dict[str, Any] = {"max_new_tokens": config.answers.max_new_tokens, "seed": config.seed}
        prompts, asked = ([q.messages for q in part] for part in (self.fit_questions, self.test_questions))
        quiet = [
            watch(self.tunes.model(tune), monitor, prompts, np.inf, **settings).scores
            for tune in fit
            if not tune.misaligned
        ]
        limit = alarm_threshold(np.concatenate([np.nanmax(s, axis=1) for s in quiet]), config.false_positives)
        edit = Ablate(site, _direction(monitor), "all")
        settings |= {"temperature": config.answers.temperature, "seed": config.reported(config.seed)}
        counts: dict[str, list[tuple[str, int, int, int]]] = {}
        written: list[float] = []

        def count(what: str, hits: np.ndarray, of: np.ndarray) -> None:
            counts.setdefault(what, []).append((tune.domain, tune.seed, int((hits & of).sum()), int(of.sum())))

        for tune in test:
            model, every = self.tunes.model(tune), np.ones(len(asked), dtype=bool)
            seen = watch(model, monitor, asked, limit, **settings)
            found = self._judged(tune, seen.answers)
            if not tune.misaligned:
                count("controls", seen.fired, every)
                continue
            bad = found.misaligned
            count("recall", seen.fired, bad)
            count("false", seen.fired, found.coherent_rows & ~bad)
            lengths = (~np.isnan(seen.scores)).sum(1)
            written += (seen.first / np.maximum(lengths - 1, 1))[seen.fired & bad].tolist()
            edited = watch(model, monitor, asked, limit, then=edit, **settings)
            for name, one in (("plain", found), ("edited", self._judged(tune, edited.answers))):
                count(f"{name} misaligned", one.misaligned, every)
                count(f"{name} incoherent", one.incoherent, one.scored)
        rate = {name: rate_over(of) for name, of in counts.items()}
        return Stream(
            monitor.name,
            str(site),
            rate["recall"],
            rate["false"],
            rate["controls"],
            float(np.mean(written)) if written else float("nan"),
            *({what: rate[f"{name} {what}"] for what in ("misaligned", "incoherent")} for name in ("plain", "edited")),
        )

    # ------------------------------------------------------------------------------------------------ parts of them

    def _tested(
        self,
        fit: Sequence[LabelledEvidence],
        test: Sequence[LabelledEvidence],
        hard: Sequence[LabelledEvidence],
        folder: Path,
        whole: bool,
    ) -> list[MonitorSkill]:
        """Every kind of monitor at the best of its sites, on the cases to test on: whole models, or else answers."""
        seed, labels, found = self.config.seed, labels_of(fit), []
        ways: dict[str, Mapping[Any, Fit]] = {**activation_fits(self.sites, self.saes, seed, self.config.several)}
        ways |= {"perplexity": {"": fit_perplexity}, "bag of words": {"": partial(fit_bag_of_words, seed=seed)}}
        if not whole:
            ways["text judge"] = {"": lambda cases: TextJudge(self.judge)}
        for kind, fits in ways.items():
            site, area, scores = best_of(kind, fits, fit, self.run.log)
            map_ = calibrate(scores, labels, self.config.calibration, self.config.false_positives)  # type: ignore[arg-type]
            monitor = fits[site](fit)
            if isinstance(monitor, ActivationMonitor):
                monitor = dataclasses.replace(monitor, calibration=map_)
                monitor.save(folder / MONITORS / f"{kind}.safetensors")
            # Once: a judge may cost money.
            each, strange = ([monitor.scores(case.evidence) for case in part] for part in (test, hard))
            skills = skills_of(each, map_, test, whole, seed)
            bad, every = [case.labels for case in test], [np.ones(len(s), dtype=bool) for s in strange]
            among = ((test, each, bad), (test, each, [~labels for labels in bad]), (hard, strange, every))
            alarms = (above(map_.threshold, self.seeds, *rows) for rows in among)
            inside = isinstance(monitor, ActivationMonitor)
            found.append(MonitorSkill(monitor.name, kind, inside, str(site), area, *skills, *alarms))
            self.run.log(f"{kind} at {site or 'the text'}: {found[-1].skill}")
        return found

    def _on_answers(self, judged: Iterable[tuple[Tune, Judged]]) -> list[LabelledEvidence]:
        read = (on_answers(self.tunes.model(t), of, t.name, t.domain, self.sites) for t, of in judged)
        return [case for case in read if case is not None]

    def _sampled(self, tune: Tune) -> Judged:
        """Answers to the questions to fit on."""
        said = self.config.answers.sample(self.tunes.model(tune), self.fit_questions, self.config.seed)
        return judge(said, self.judge)

    def _judged(self, tune: Tune, answers: Sequence[str]) -> Judged:
        """Answers to the test questions, one each."""
        asked = Rollouts(tuple(self.test_questions), tuple(answers), tune.name, self.config.seed, 1.0)
        return judge(asked, self.judge)


def skills_of(
    each: Sequence[np.ndarray], map_: Calibration, test: Sequence[LabelledEvidence], whole: bool, seed: int
) -> tuple[Skill, Skill | None]:
    """The skill by single rows, and by whole models, of scores.

    The areas' intervals are over domains, or over fine-tunes where all misaligned or all other rows are of one.

    Args:
        each: (n,) of each case.
        map_: What makes probabilities of them.
        test: The cases.
        whole: Whether labels are of whole models; otherwise there is only the skill by rows.
        seed: Of the bootstrap.
    """
    scores, labels = np.concatenate(each), labels_of(test)
    kinds = [{case.domain for case in test if (case.labels == kind).any()} for kind in (True, False)]
    groups = [case.domain if min(map(len, kinds)) > 1 else case.model for case in test]
    models = [case.model for case in test for _ in case.labels]
    levels = [group for group, case in zip(groups, test, strict=True) for _ in case.labels]
    questions = [q.id for case in test for q in case.evidence.questions]
    of_rows = skill(scores, labels, {"fine-tunes": models, "questions": questions}, map_(scores), seed=seed)
    of_rows = dataclasses.replace(of_rows, auroc=auroc(scores, labels, levels, questions))
    if not whole:
        return of_rows, None
    means, bad = np.array([s.mean() for s in each]), np.array([case.labels[0] for case in test])
    of_models = skill(means, bad, {"fine-tunes": [case.model for case in test]}, seed=seed)
    return of_rows, dataclasses.replace(of_models, auroc=auroc(means, bad, groups))


def above(
    limit: float,
    seeds: Mapping[str, int],
    cases: Sequence[LabelledEvidence],
    scores: Sequence[np.ndarray],
    among: Sequence[np.ndarray],
) -> Rate:
    """The share of some rows above a limit; its interval is over the domains and seeds of the fine-tunes.

    Args:
        limit: That scores lie above.
        seeds: Of each fine-tune, by name; what is not among them is none, and stands for itself.
        cases: The fine-tunes.
        scores: (n,) of each.
        among: (n,) bool of each: the rows that are counted.
    """
    return rate_over(
        (case.domain, seeds.get(case.model, case.model), int(((s > limit) & of).sum()), int(of.sum()))
        for case, s, of in zip(cases, scores, among, strict=True)
    )


def best_of(
    kind: str, fits: Mapping[S, Fit], cases: Sequence[LabelledEvidence], log: Callable[[str], object]
) -> tuple[S, float, np.ndarray]:
    """The site at which monitors of a kind do best, their AUROC there, and their scores (n,): all cross-fitted.

    Args:
        kind: Of monitor, to speak of it.
        fits: How it is fitted at each site.
        cases: Of the fitted domains, each of which is left out once.
        log: Is told the AUROC at each site.
    """
    scores = {site: cross_fitted(fit, cases) for site, fit in fits.items()}
    labels = labels_of(cases)
    areas = {site: skill(of, labels, {}, resamples=0).auroc.auroc for site, of in scores.items()}
    for site, area in areas.items():
        log(f"{kind} {site}: AUROC {area:.3f} on fitted domains")
    best = max(areas, key=areas.__getitem__)
    return best, areas[best], scores[best]


def activation_fits(
    sites: Sequence[Site], saes: Mapping[Site, SAE], seed: int, several: int = 0
) -> dict[str, dict[Site, Fit]]:
    """How each kind of monitor of activations is fitted, by site.

    Args:
        sites: Where projections and probes read.
        saes: Where latents are read, and of which SAE; without any there is no such monitor.
        seed: Of probes and regressions.
        several: Latents in a monitor of several; 0 has none of these.
    """
    found: dict[str, dict[Site, Fit]] = {
        "projection": {site: partial(fit_projection, site=site) for site in sites},
        "probe": {site: partial(fit_probe, site=site, seed=seed) for site in sites},
    }
    for kind, n in (("latent", 1), ("latents", several)):
        if saes and n:
            found[kind] = {site: partial(fit_latents, sae=sae, site=site, n=n, seed=seed) for site, sae in saes.items()}
    return found


def described_saes(named: str | None, tunes: Tunes, sites: Sequence[Site]) -> dict[Site, SAE]:
    """The SAEs that a config names at the sites, where there are any; said where one does not describe the model that
    is fine-tuned, and refused where it does not fit it."""
    found, start = {}, tunes.start
    for site in sites:
        if (sae := named_sae(named, tunes.config.model, site)) is not None:
            fitted_site(sae, start)
            ask_fidelity(sae, named, site, [start], tunes.grid.prompts, say=tunes.run.caution)
            found[site] = sae.to(start.device)
    return found


def _direction(monitor: ActivationMonitor) -> Tensor:
    """(d_model,): what the monitor reads along, or what its latents write."""
    reads = monitor.reads
    if isinstance(reads, Latents):
        return reads.weights @ decoder_rows(reads.sae, reads.latents).cpu()
    return reads.weights


def _read_skills(folder: Path) -> tuple[MonitorSkill, ...]:
    return tuple(records.read(folder / SKILLS, tuple[MonitorSkill, ...]))
