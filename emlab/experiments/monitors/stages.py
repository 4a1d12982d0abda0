"""The stages of a run of monitors: fine-tunes, fits and tests on prompts and on answers, and monitors at work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emlab import artifacts, records
from emlab.detection import (
    ActivationMonitor,
    Calibration,
    Fit,
    LabelledEvidence,
    Monitor,
    TextJudge,
    alarm_threshold,
    calibrate,
    cross_fitted,
    evidence,
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
from emlab.evaluation import Rate, Rollouts, sample
from emlab.evaluation.judging import Judged, judge
from emlab.evaluation.rates import bootstrap
from emlab.experiments.finetuning.config import Config as GridConfig
from emlab.experiments.finetuning.tunes import Pair, Tune, Tunes, on_answers
from emlab.experiments.material.fidelity import ask_fidelity
from emlab.experiments.material.models import site_in
from emlab.experiments.material.saes import named_sae
from emlab.experiments.monitors.report import MonitorFindings, MonitorSkill, Stream, best_inside
from emlab.interventions import Ablate
from emlab.runs import Run
from emlab.saes import decoder_rows, fitted_site
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.experiments.monitors.config import Config

TRAINED, DONE = "monitors", "found.json"


class Stages:
    """What all stages of a run share."""

    def __init__(self, config: Config, grid: GridConfig, here: Run) -> None:
        self.config, self.here, self.tunes = config, here, Tunes(grid, here)
        start = self.tunes.start
        self.sites = tuple(site_in(text, start) for text in config.sites)
        self.saes = described_saes(config.sae, config.model, self.tunes, self.sites)
        self.test_questions = self.tunes.grid.test
        self.fit_questions = spread(self.tunes.grid.discovery, config.questions)
        self.judge = self.tunes.grid.judge

    def findings(self) -> MonitorFindings:
        """All stages in order."""
        config = self.config
        fit = self.tunes.of(config.fit, config.fit_seeds)
        test = self.tunes.of(config.test, config.test_seeds)
        hard = self.tunes.of([Pair("hard", config.hard, config.hard)], config.test_seeds) if config.hard else []
        prompts = self.here.fill("prompts", lambda folder: self._prompts(fit, test, hard, folder), read_skills)
        answers = self.here.fill("answers", lambda folder: self._answers(fit, test, folder), read_skills)
        stream = None
        if answers:
            stream = self.here.fill(
                "stream", lambda folder: self._stream(fit, test, best_inside(answers), folder), _stream
            )
        return MonitorFindings(
            config.model,
            tuple(dict.fromkeys(tune.domain for tune in fit)),
            tuple(dict.fromkeys(tune.domain for tune in test)),
            {tune.name: tune.rate for tune in (*fit, *test, *hard)},
            prompts,
            answers,
            stream,
            config.false_positives,
        )

    # -------------------------------------------------------------------------------------------------- the monitors

    def fits(self, judged: bool) -> dict[tuple[str, str], Fit]:
        """How each monitor is fitted, by its kind and its site (empty for a baseline)."""
        found: dict[tuple[str, str], Fit] = {}
        for site in self.sites:
            found["projection", str(site)] = lambda cases, site=site: fit_projection(cases, site)  # type: ignore[misc]
            found["probe", str(site)] = lambda cases, site=site: fit_probe(cases, site, self.config.seed)  # type: ignore[misc]
            if site in self.saes:
                for kind, n in (("latent", 1), ("latents", self.config.several)):
                    found[kind, str(site)] = lambda cases, site=site, n=n: fit_latents(  # type: ignore[misc]
                        cases, self.saes[site], site, n, seed=self.config.seed
                    )
        found["perplexity", ""] = fit_perplexity
        found["bag of words", ""] = lambda cases: fit_bag_of_words(cases, self.config.seed)
        if judged:
            found["text judge", ""] = lambda cases: TextJudge(self.judge)
        return found

    def _tested(
        self,
        fit: Sequence[LabelledEvidence],
        test: Sequence[LabelledEvidence],
        hard: Sequence[LabelledEvidence],
        whole: bool,
        folder: Path,
        judged: bool,
    ) -> list[MonitorSkill]:
        """Every kind of monitor at the best of its sites, on the cases to test on."""
        labels, found = labels_of(fit), []
        tried: dict[str, list[tuple[float, str, np.ndarray, Fit]]] = {}
        for (kind, site), how in self.fits(judged).items():
            scores = cross_fitted(how, fit)
            area = skill(scores, labels, {}, resamples=0).auroc.auroc
            tried.setdefault(kind, []).append((area, site, scores, how))
            self.here.log(f"{kind} {site}: AUROC {area:.3f} on fitted domains")
        for kind, ways in tried.items():
            area, site, scores, how = max(ways, key=lambda way: way[0])
            map_ = calibrate(scores, labels, self.config.calibration, self.config.false_positives)  # type: ignore[arg-type]
            monitor = how(fit)
            if isinstance(monitor, ActivationMonitor):
                monitor = dataclasses.replace(monitor, calibration=map_)
                monitor.save(folder / TRAINED / f"{kind}.safetensors")
            found.append(self._row(kind, site, area, monitor, map_, test, hard, whole))
            self.here.log(f"{kind} at {site or 'the text'}: {found[-1].skill}")
        return found

    def _row(
        self,
        kind: str,
        site: str,
        fitted: float,
        monitor: Monitor,
        map_: Calibration,
        test: Sequence[LabelledEvidence],
        hard: Sequence[LabelledEvidence],
        whole: bool,
    ) -> MonitorSkill:
        each = [monitor.scores(case.evidence) for case in test]
        scores, labels = np.concatenate(each), labels_of(test)
        models = [case.model for case in test for _ in case.labels]
        asked = [q.id for case in test for q in case.evidence.questions]
        seed = self.config.seed
        of_rows = skill(scores, labels, {"fine-tunes": models, "questions": asked}, map_(scores), seed=seed)
        of_models = None
        if whole:
            means, bad = np.array([s.mean() for s in each]), np.array([case.labels[0] for case in test])
            of_models = skill(means, bad, {"fine-tunes": [case.model for case in test]}, seed=seed)
        strange = [monitor.scores(case.evidence) for case in hard]
        return MonitorSkill(
            monitor.name,
            kind,
            isinstance(monitor, ActivationMonitor),
            site,
            fitted,
            of_rows,
            of_models,
            alarms=self._share(
                [(s > map_.threshold) & c.labels for s, c in zip(each, test, strict=True)], [c.labels for c in test]
            ),
            false_alarms=self._share(
                [(s > map_.threshold) & ~c.labels for s, c in zip(each, test, strict=True)], [~c.labels for c in test]
            ),
            hard=self._share([s > map_.threshold for s in strange], [np.ones(len(s), dtype=bool) for s in strange]),
        )

    def _share(self, hits: Sequence[np.ndarray], of: Sequence[np.ndarray]) -> Rate:
        """A share of rows, its interval from drawing whole fine-tunes."""
        return bootstrap([h.sum() for h in hits], [o.sum() for o in of], self.config.seed)

    # ------------------------------------------------------------------------------------------------------- stages

    def _prompts(self, fit: Sequence[Tune], test: Sequence[Tune], hard: Sequence[Tune], folder: Path) -> None:
        read = [self.tunes.on_prompts(tune, self.fit_questions, self.sites) for tune in fit]
        tested = [self.tunes.on_prompts(tune, self.test_questions, self.sites) for tune in test]
        strange = [self.tunes.on_prompts(tune, self.test_questions, self.sites) for tune in hard]
        start = evidence(self.tunes.start, self.test_questions, self.sites)
        tested.append(LabelledEvidence(start, np.zeros(len(start), dtype=bool), "start", "start"))
        rows = self._tested(read, tested, strange, True, folder, judged=False)
        artifacts.write_json(folder / DONE, rows)

    def _answers(self, fit: Sequence[Tune], test: Sequence[Tune], folder: Path) -> None:
        """Of misaligned fine-tunes: on others there is next to no misaligned answer to be found."""
        read, tested = [], []
        for tune in (tune for tune in fit if tune.misaligned):
            judged = self._sampled(tune, self.fit_questions)
            read.append(on_answers(self.tunes.model(tune), judged, tune.name, tune.domain, self.sites))
        for tune in (tune for tune in test if tune.misaligned):
            tested.append(on_answers(self.tunes.model(tune), tune.judged, tune.name, tune.domain, self.sites))
        kept, asked = ([case for case in part if case is not None] for part in (read, tested))
        parts = [kept, asked, *([c for c in kept if c.domain != domain] for domain in {case.domain for case in kept})]
        rows = []
        if len(asked) < LEAST:
            self.here.log(
                f"{len(asked)} misaligned fine-tunes to test on are too few for intervals; give {LEAST} or more"
            )
        elif all(len({bool(label) for case in part for label in case.labels}) == 2 for part in parts):
            rows = self._tested(kept, asked, [], False, folder, judged=True)
        else:
            self.here.log("too few misaligned or too few aligned answers to fit monitors of answers on")
        artifacts.write_json(folder / DONE, rows)

    def _stream(self, fit: Sequence[Tune], test: Sequence[Tune], best: MonitorSkill, folder: Path) -> None:
        """The best monitor of answers, its threshold set on whole answers of the fitted domains' controls."""
        site = Site.parse(best.site)
        path = self.here.folder / "answers" / TRAINED / f"{best.kind}.safetensors"
        monitor = ActivationMonitor.load(path, self.saes.get(site))
        how, n = self.config.answers, self.config.answers.max_new_tokens
        prompts = [q.messages for q in self.fit_questions]

        def highest(tune: Tune) -> np.ndarray:
            seen = watch(self.tunes.model(tune), monitor, prompts, np.inf, max_new_tokens=n, seed=self.config.seed)
            return np.nanmax(seen.scores, axis=1)

        quiet = np.concatenate([highest(tune) for tune in fit if not tune.misaligned])
        limit = alarm_threshold(quiet, self.config.false_positives)
        direction = _direction(monitor)
        counts: dict[str, list[tuple[int, int]]] = {}
        written: list[float] = []
        asked = [q.messages for q in self.test_questions]
        for tune in test:
            model = self.tunes.model(tune)
            settings: dict[str, Any] = {"max_new_tokens": n, "seed": self.config.seed, "temperature": how.temperature}
            seen = watch(model, monitor, asked, limit, **settings)
            found = self._judged(tune, seen.answers)
            if not tune.misaligned:
                counts.setdefault("controls", []).append((int(seen.fired.sum()), len(asked)))
                continue
            bad, good = found.misaligned, found.coherent_rows & ~found.misaligned
            counts.setdefault("recall", []).append((int((seen.fired & bad).sum()), int(bad.sum())))
            counts.setdefault("false", []).append((int((seen.fired & good).sum()), int(good.sum())))
            lengths = (~np.isnan(seen.scores)).sum(1)
            written += (seen.first / np.maximum(lengths - 1, 1))[seen.fired & bad].tolist()
            edited = watch(model, monitor, asked, limit, then=Ablate(site, direction, "all"), **settings)
            for name, one in (("plain", found), ("edited", self._judged(tune, edited.answers))):
                counts.setdefault(f"{name} misaligned", []).append((int(one.misaligned.sum()), len(asked)))
                counts.setdefault(f"{name} incoherent", []).append((int(one.incoherent.sum()), int(one.scored.sum())))
        rate = {name: bootstrap([h for h, _ in c], [t for _, t in c], self.config.seed) for name, c in counts.items()}
        result = Stream(
            monitor.name,
            str(site),
            rate["recall"],
            rate["false"],
            rate["controls"],
            float(np.mean(written)) if written else float("nan"),
            *({what: rate[f"{name} {what}"] for what in ("misaligned", "incoherent")} for name in ("plain", "edited")),
        )
        artifacts.write_json(folder / DONE, result)

    def _sampled(self, tune: Tune, questions: Sequence[Any]) -> Judged:
        how = self.config.answers
        said = sample(
            self.tunes.model(tune),
            questions,
            how.per_question,
            self.config.seed,
            how.temperature,
            how.max_new_tokens,
            batch_size=how.batch_size,
        )
        return judge(said, self.judge)

    def _judged(self, tune: Tune, answers: Sequence[str]) -> Judged:
        """Answers to the test questions, one each."""
        asked = Rollouts(tuple(self.test_questions), tuple(answers), tune.name, self.config.seed, 1.0)
        return judge(asked, self.judge)


def described_saes(named: str | None, model: str, tunes: Tunes, sites: Sequence[Site]) -> dict[Site, SAE]:
    """The SAEs that a config names at the sites, where there are any; said where one does not describe the model that
    is fine-tuned, and refused where it does not fit it."""
    found, start = {}, tunes.start
    for site in sites:
        if (sae := named_sae(named, model, site)) is not None:
            fitted_site(sae, start)
            prompts = [question.messages for question in tunes.grid.discovery]
            ask_fidelity(sae, named, site, [start], prompts, say=tunes.run.caution)
            found[site] = sae.to(start.device)
    return found


def _direction(monitor: ActivationMonitor) -> Any:
    """(d_model,): what the monitor reads along, or what its latents write."""
    reads: Any = monitor.reads
    if not hasattr(reads, "sae"):
        return reads.weights
    return reads.weights @ decoder_rows(reads.sae, reads.latents).cpu()


def read_skills(folder: Path) -> tuple[MonitorSkill, ...]:
    """What a stage that tests monitors wrote."""
    return tuple(records.read(folder / DONE, tuple[MonitorSkill, ...]))


def _stream(folder: Path) -> Stream:
    return records.read(folder / DONE, Stream)
