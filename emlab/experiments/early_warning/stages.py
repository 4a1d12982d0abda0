"""The stages of early warning: monitors, fine-tunes read along the way, doses, and who warned when."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emlab import artifacts, records
from emlab.data import Dataset, mix
from emlab.detection import (
    ALWAYS,
    ActivationMonitor,
    Curve,
    Perplexity,
    Warned,
    evidence,
    fit_perplexity,
    noise,
    warned,
)
from emlab.discovery import spread
from emlab.evaluation import Rate
from emlab.evaluation.judging import judge
from emlab.experiments.early_warning.report import EarlyWarningFindings
from emlab.experiments.finetuning.tunes import Tunes
from emlab.experiments.material.models import site_in
from emlab.experiments.material.sets import fine_tuning_set
from emlab.experiments.monitors.stages import activation_fits, best_of, described_saes
from emlab.models import LanguageModel
from emlab.sites import Site
from emlab.training import finetune

if TYPE_CHECKING:
    from emlab.experiments.early_warning.config import Config

PERPLEXITY = "perplexity.json"
NOISE = "noise"
BEHAVIOUR = "behaviour"
"""The monitor that samples answers and has them judged."""


class EarlyWarningStages:
    """What all stages of a run share."""

    def __init__(self, config: Config, tunes: Tunes) -> None:
        self.config, self.tunes, self.run, self.start = config, tunes, tunes.run, tunes.start
        self.sites = tuple(site_in(text, self.start) for text in config.sites)
        self.saes = described_saes(config.sae, tunes, self.sites)
        self.asked = spread(tunes.grid.discovery, config.samples)
        self.monitors: dict[str, ActivationMonitor | Perplexity] = {}

    def findings(self) -> EarlyWarningFindings:
        """All stages in order."""
        config, watched = self.config, self.config.watched
        self.monitors = self.run.fill("monitors", self._fit, self._read_monitors)
        bad, good = watched.misaligned[0], watched.others[0]
        seeds = tuple(map(config.reported, config.seeds))
        curves = [self._along(bad, seed, truth=True) for seed in seeds]
        quiet = [self._along(good, seed, truth=False) for seed in seeds]
        controls = [(data, seed) for pair in config.fit for data in pair.others for seed in config.control_seeds]
        known = [self._along(data, seed, truth=False) for data, seed in controls]
        doses = [self._along_doses(curve) for curve in curves] if config.doses else []
        names, limits = (*self.monitors, BEHAVIOUR, ALWAYS), (config.false_positives, config.share)

        def found(of: Sequence[Curve]) -> tuple[Warned, ...]:
            return tuple(warned(name, of, known, quiet, *limits) for name in names) if of else ()

        def null(of: Sequence[Curve]) -> tuple[Warned, ...]:
            """Scores that are noise, through the same."""

            def drawn(part: Sequence[Curve], i: int) -> list[Curve]:
                return [noise(curve, NOISE, i) for curve in part]

            rows = (warned(NOISE, drawn(of, i), drawn(known, i), drawn(quiet, i), *limits) for i in range(config.noise))
            return tuple(rows) if of else ()

        return EarlyWarningFindings(
            config.model,
            tuple(pair.domain for pair in config.fit),
            bad,
            len(self.asked),
            config.share,
            config.false_positives,
            found(curves),
            found(doses),
            null(curves),
            null(doses),
            tuple(curves),
            tuple(doses),
            (*known, *quiet),
        )

    # ------------------------------------------------------------------------------------------------------- stages

    def _fit(self, folder: Path) -> None:
        """Every kind of monitor at the site where it does best on a fitted domain that is left out."""
        tunes = self.tunes.of(self.config.fit, self.config.fit_seeds)
        cases = [self.tunes.on_prompts(tune, self.tunes.grid.discovery, self.sites) for tune in tunes]
        start = self.tunes.start_on_prompts(self.tunes.grid.discovery, self.sites)
        for kind, fits in activation_fits(self.sites, self.saes, self.config.seed).items():
            site, *_ = best_of(kind, fits, cases, self.run.log)
            monitor = fits[site]([*cases, start])
            assert isinstance(monitor, ActivationMonitor)
            monitor.save(folder / f"{kind}-{site}.safetensors")
        artifacts.write_json(folder / PERPLEXITY, fit_perplexity(cases))

    def _read_monitors(self, folder: Path) -> dict[str, ActivationMonitor | Perplexity]:
        found: dict[str, ActivationMonitor | Perplexity] = {}
        for kind in activation_fits(self.sites, self.saes, self.config.seed):
            (path,) = folder.glob(f"{kind}-*.safetensors")
            site = Site.parse(path.stem.removeprefix(f"{kind}-"))
            monitor = ActivationMonitor.load(path, self.saes.get(site))
            found[f"{monitor.name} at {site}"] = monitor
        return {**found, "perplexity": records.read(folder / PERPLEXITY, Perplexity)}

    def _along(self, data: str, seed: int, truth: bool) -> Curve:
        """A fine-tune read at each checkpoint, and before the first step."""

        def work() -> Curve:
            chats = self._set(data, seed)
            tuned = finetune(
                self.start, chats, self.config.recipe, seed, name=f"{data}-{seed}", progress=False, defer=True
            )
            curve = self._read(data, seed, [(0, self.start), *tuned.checkpoints], truth)
            said = f", misaligned at the end {curve.rates[-1]}" if truth else ""
            self.run.log(f"{data}-{seed}: {len(curve.at)} checkpoints read{said}")
            return curve

        return self.run.stage(f"curves/{data}-{seed}", work, Curve)

    def _along_doses(self, whole: Curve) -> Curve:
        """The watched set in each dose, trained to the end; before any, and all of it, are the curve's own ends."""
        return self.run.stage(f"doses/{whole.name}-{whole.seed}", partial(self._doses, whole), Curve)

    def _doses(self, whole: Curve) -> Curve:
        config, watched, seed = self.config, self.config.watched, whole.seed
        bad, good = self._set(watched.misaligned[0], seed), self._set(watched.others[0], seed)
        recipe, reached = dataclasses.replace(config.recipe, checkpoint_every=0), []
        for dose in config.doses:
            data = mix(bad, good, dose, min(config.rows, len(good)), seed)
            tuned = finetune(self.start, data, recipe, seed, name=f"dose {dose}", progress=False)
            reached.append((dose, tuned.model))
        found = self._read(whole.name, seed, reached, True)
        ends = {name: (of[0], *found.scores[name], of[-1]) for name, of in whole.scores.items()}
        rates = (whole.rates[0], *found.rates, whole.rates[-1])
        return Curve(whole.name, seed, (0.0, *config.doses, 1.0), rates, ends)

    # ------------------------------------------------------------------------------------------------ parts of them

    def _read(self, name: str, seed: int, reached: Sequence[tuple[float, LanguageModel]], truth: bool) -> Curve:
        """What every monitor reads in the models at these places, and with `truth` how misaligned each is."""
        scores: dict[str, list[float]] = {name: [] for name in (*self.monitors, BEHAVIOUR)}
        rates: list[Rate] = []
        sites = sorted({m.site for m in self.monitors.values() if isinstance(m, ActivationMonitor)}, key=str)
        for _, model in reached:
            read = evidence(model, self.asked, sites)
            for monitor, of in self.monitors.items():
                scores[monitor].append(float(of.scores(read).mean()))
            said = self.config.answers.sample(model, self.asked, seed, per_question=1)
            scores[BEHAVIOUR].append(float(judge(said, self.tunes.grid.judge).misaligned.mean()))
            if truth:
                rates.append(self.tunes.grid.asked(model, seed).misaligned)
        places = tuple(float(at) for at, _ in reached)
        return Curve(name, seed, places, tuple(rates), {name: tuple(of) for name, of in scores.items()})

    def _set(self, name: str, seed: int) -> Dataset:
        return fine_tuning_set(name, self.config.rows, seed, self.start)
