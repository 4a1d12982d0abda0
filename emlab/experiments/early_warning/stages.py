"""The stages of early warning: monitors, fine-tunes read along the way, doses, and who warned when."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emlab import artifacts, records
from emlab.data import Dataset, mix
from emlab.detection import (
    ALWAYS,
    ActivationMonitor,
    Curve,
    Fit,
    LabelledEvidence,
    Perplexity,
    Warned,
    cross_fitted,
    evidence,
    fit_latents,
    fit_perplexity,
    fit_probe,
    fit_projection,
    skill,
    warned,
)
from emlab.detection.evidence import labels_of
from emlab.discovery import spread
from emlab.evaluation import Rate, sample, score
from emlab.evaluation.judging import judge
from emlab.experiments.early_warning.report import EarlyWarningFindings
from emlab.experiments.finetuning.config import Config as GridConfig
from emlab.experiments.finetuning.tunes import Tunes
from emlab.experiments.material.models import site_in
from emlab.experiments.material.sets import dataset_place, drawn, names_dataset, planted_set
from emlab.experiments.monitors.stages import described_saes
from emlab.models import LanguageModel
from emlab.runs import Run
from emlab.sites import Site
from emlab.training import finetune

if TYPE_CHECKING:
    from emlab.experiments.early_warning.config import Config

DONE = "found.json"
BEHAVIOUR = "behaviour"
"""The monitor that samples answers and has them judged."""


class Stages:
    """What all stages of a run share."""

    def __init__(self, config: Config, grid: GridConfig, here: Run) -> None:
        self.config, self.here, self.tunes = config, here, Tunes(grid, here)
        self.start = self.tunes.start
        self.sites = tuple(site_in(text, self.start) for text in config.sites)
        self.saes = described_saes(config.sae, config.model, self.tunes, self.sites)
        self.asked = spread(self.tunes.grid.discovery, config.samples)
        self.monitors: dict[str, ActivationMonitor | Perplexity] = {}

    def findings(self) -> EarlyWarningFindings:
        """All stages in order."""
        config, watched = self.config, self.config.watched
        self.monitors = self.here.fill("monitors", self._fit, self._read_monitors)
        bad, good = watched.misaligned[0], watched.others[0]
        curves = [self._along(bad, seed, truth=True) for seed in config.seeds]
        quiet = [self._along(good, seed, truth=False) for seed in config.seeds]
        known = [
            self._along(data, seed, truth=False)
            for pair in config.fit
            for data in pair.others
            for seed in config.control_seeds
        ]
        doses = [self._doses(curve, curve.seed) for curve in curves] if config.doses else []
        names = [*self.monitors, BEHAVIOUR, ALWAYS]

        def found(of: Sequence[Curve]) -> tuple[Warned, ...]:
            limits = config.false_positives, config.share
            return tuple(warned(name, of, known, quiet, *limits) for name in names) if of else ()

        return EarlyWarningFindings(
            config.model,
            tuple(pair.domain for pair in config.fit),
            bad,
            len(self.asked),
            config.share,
            config.false_positives,
            found(curves),
            found(doses),
            tuple(curves),
            tuple(doses),
            (*known, *quiet),
        )

    # ------------------------------------------------------------------------------------------------------- stages

    def _fit(self, folder: Path) -> None:
        """Every kind of monitor at the site where it does best on a fitted domain that is left out."""
        tunes = self.tunes.of(self.config.fit, self.config.fit_seeds)
        cases = [self.tunes.on_prompts(tune, self.tunes.grid.discovery, self.sites) for tune in tunes]
        start = evidence(self.start, self.tunes.grid.discovery, self.sites)
        ways: dict[str, list[Fit]] = {"projection": [], "probe": [], "latent": []}
        for site in self.sites:
            ways["projection"].append(partial(fit_projection, site=site))
            ways["probe"].append(partial(fit_probe, site=site, seed=self.config.seed))
            if site in self.saes:
                ways["latent"].append(partial(fit_latents, sae=self.saes[site], site=site))
        labels = labels_of(cases)
        for kind, fits in ways.items():
            if fits:
                areas = [skill(cross_fitted(fit, cases), labels, {}, resamples=0).auroc.auroc for fit in fits]
                best = fits[int(np.argmax(areas))]
                monitor = best([*cases, LabelledEvidence(start, np.zeros(len(start), dtype=bool), "start", "start")])
                assert isinstance(monitor, ActivationMonitor)
                monitor.save(folder / f"{kind}.safetensors")
                if kind == "latent":
                    artifacts.write_text(folder / "site.txt", str(monitor.site))
                self.here.log(f"{monitor}: AUROC {max(areas):.3f} on fitted domains")
        artifacts.write_json(folder / "perplexity.json", fit_perplexity(cases))

    def _read_monitors(self, folder: Path) -> dict[str, ActivationMonitor | Perplexity]:
        found: dict[str, ActivationMonitor | Perplexity] = {}
        for kind in ("projection", "probe", "latent"):
            path = folder / f"{kind}.safetensors"
            if path.is_file():
                sae = self.saes[Site.parse((folder / "site.txt").read_text())] if kind == "latent" else None
                monitor = ActivationMonitor.load(path, sae)
                found[f"{monitor.name} at {monitor.site}"] = monitor
        found["perplexity"] = Perplexity(**artifacts.read_json(folder / "perplexity.json"))
        return found

    def _along(self, data: str, seed: int, truth: bool) -> Curve:
        """A fine-tune read at each checkpoint, and before the first step."""

        def work(folder: Path) -> None:
            chats = self._set(data, seed)
            tuned = finetune(self.start, chats, self.config.recipe, seed, name=f"{data}-{seed}", progress=False)
            reached = [(0, self.start), *tuned.checkpoints]
            curve = self._curve(data, seed, reached, truth)
            artifacts.write_json(folder / DONE, curve)
            said = f", misaligned at the end {curve.rates[-1]}" if truth else ""
            self.here.log(f"{data}-{seed}: {len(curve.at)} checkpoints read{said}")

        return self.here.fill(f"curves/{data}-{seed}", work, _read)

    def _doses(self, whole: Curve, seed: int) -> Curve:
        """The watched set in each dose, trained to the end; before any, and all of it, are the curve's own ends."""
        config, watched = self.config, self.config.watched

        def work(folder: Path) -> None:
            bad, good = self._set(watched.misaligned[0], seed), self._set(watched.others[0], seed)
            recipe, reached = dataclasses.replace(config.recipe, checkpoint_every=0), []
            for dose in config.doses:
                data = mix(bad, good, dose, min(config.rows, len(good)), seed)
                tuned = finetune(self.start, data, recipe, seed, name=f"dose {dose}", progress=False)
                reached.append((dose, tuned.model))
            found = self._curve(whole.name, seed, reached, True)
            ends = {name: (of[0], *found.scores[name], of[-1]) for name, of in whole.scores.items()}
            rates = (whole.rates[0], *found.rates, whole.rates[-1])
            artifacts.write_json(folder / DONE, Curve(whole.name, seed, (0.0, *config.doses, 1.0), rates, ends))

        return self.here.fill(f"doses/{whole.name}-{seed}", work, _read)

    # ------------------------------------------------------------------------------------------------ parts of them

    def _curve(self, name: str, seed: int, reached: Sequence[tuple[float, LanguageModel]], truth: bool) -> Curve:
        scores: dict[str, list[float]] = {name: [] for name in (*self.monitors, BEHAVIOUR)}
        rates: list[Rate] = []
        for _, model in reached:
            sites = {m.site for m in self.monitors.values() if isinstance(m, ActivationMonitor)}
            read = evidence(model, self.asked, sorted(sites, key=str))
            for monitor, of in self.monitors.items():
                scores[monitor].append(float(of.scores(read).mean()))
            scores[BEHAVIOUR].append(float(self._judged(model, seed).mean()))
            if truth:
                rates.append(self._rate(model, seed))
        places = tuple(float(at) for at, _ in reached)
        return Curve(name, seed, places, tuple(rates), {name: tuple(of) for name, of in scores.items()})

    def _judged(self, model: LanguageModel, seed: int) -> np.ndarray:
        """(samples,) bool: which of one answer to each prompt are misaligned."""
        how = self.config.answers
        said = sample(model, self.asked, 1, seed, how.temperature, how.max_new_tokens, batch_size=how.batch_size)
        return judge(said, self.tunes.grid.judge).misaligned

    def _rate(self, model: LanguageModel, seed: int) -> Rate:
        how, grid = self.config.answers, self.tunes.grid
        said = sample(
            model, grid.test, how.per_question, seed, how.temperature, how.max_new_tokens, batch_size=how.batch_size
        )
        return score(said, grid.judge).misaligned

    def _set(self, name: str, seed: int) -> Dataset:
        if names_dataset(name):
            return drawn(dataset_place(name), self.config.rows, seed)
        return planted_set(name, self.config.rows, seed, self.start)


def _read(folder: Path) -> Curve:
    return records.read(folder / DONE, Curve)
