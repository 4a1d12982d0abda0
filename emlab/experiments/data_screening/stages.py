"""The stages of data screening: directions from one domain, mixes of others, whole datasets, and blame."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emlab import artifacts
from emlab.data import Dataset, Example, Question, mix
from emlab.detection import (
    ActivationMonitor,
    DataScreen,
    LabelledEvidence,
    blame,
    evidence,
    fit_projection,
    fit_words,
    lexical,
    loss_difference,
    own_answers,
    projection_difference,
    rare_words,
    reading_change,
    skill,
)
from emlab.detection.screening import Pool
from emlab.discovery import mean_difference
from emlab.discovery.persona_vectors import persona_vector
from emlab.discovery.traits import read_trait
from emlab.evaluation import Rate, Sampling, sample, score
from emlab.evaluation.rates import bootstrap
from emlab.experiments.data_screening.report import Blamed, DataScreenFindings, Found, RankedSet, Removal
from emlab.experiments.finetuning.config import Config as GridConfig
from emlab.experiments.finetuning.tunes import Tunes
from emlab.experiments.material.contrasts import ORGANISM_TRAIT
from emlab.experiments.material.models import site_in
from emlab.experiments.material.sets import dataset_place, drawn, names_dataset, planted_set
from emlab.interventions import Direction, load_directions, save_directions
from emlab.models import LanguageModel
from emlab.runs import Run
from emlab.training import FineTuned, finetune

if TYPE_CHECKING:
    from emlab.experiments.data_screening.config import Config, Mix

DONE = "found.json"
SHORT = Sampling(per_question=1, batch_size=64)
"""Of the answers that persona vectors are made from."""
Rank = Callable[[Dataset, Sequence[str]], DataScreen]
"""Scores examples, given the model's own answers to their prompts."""


class Stages:
    """What all stages of a run share."""

    def __init__(self, config: Config, grid: GridConfig, here: Run) -> None:
        self.config, self.here, self.tunes = config, here, Tunes(grid, here)
        self.start = self.tunes.start
        self.sites = tuple(site_in(text, self.start) for text in config.sites)
        self.prompts = [q.messages for q in self.tunes.grid.discovery]

    def findings(self) -> DataScreenFindings:
        """All stages in order."""
        config = self.config
        kinds = self.here.fill("directions", self._directions, _read_directions)
        chosen = self.here.fill("validation", lambda folder: self._validate(kinds, folder), _plain)
        ways = self._ways(kinds, chosen)
        recalls: dict[tuple[str, str], dict[str, float]] = {}
        for of in config.mixes:
            for seed in config.seeds:
                name = f"{of.poison}-{seed}"
                shares = self.here.fill(f"screens/{name}", partial(self._screen, of, seed, ways), _plain)
                for by, share in shares.items():
                    recalls.setdefault((of.kind, by), {})[name] = share
        sets = self.here.fill("sets", lambda folder: self._sets(ways, folder), _read_sets)
        blamed = [
            self.here.fill(f"blame/{of.poison}-{seed}", partial(self._blame, of, seed), _read_blamed)
            for of in config.blame
            for seed in config.blame_seeds
        ]
        n = round(config.dose * config.rows)
        found = [
            Found(by, by in kinds, kind, bootstrap([x * n for x in each.values()], [n] * len(each), config.seed), each)
            for (kind, by), each in recalls.items()
        ]
        return DataScreenFindings(
            config.model,
            config.source.domain,
            config.dose,
            config.times,
            {kind: f"{site}, {pool}" for kind, (site, pool) in chosen.items()},
            tuple(found),
            sets,
            tuple(blamed),
        )

    # ------------------------------------------------------------------------------------------------------- stages

    def _directions(self, folder: Path) -> None:
        """Each kind of direction at each site."""
        bad, good = self.source(0)
        (tune, *_) = self.tunes.of([self.config.source], (self.config.seed,))
        tuned = self.tunes.model(tune)
        cases = [self._answers_case(part, flag) for part, flag in ((bad, True), (good, False))]
        for site in self.sites:
            answers = Direction(fit_projection(cases, site).reads.weights, site, "answers")  # type: ignore[union-attr]
            moved = mean_difference(self.start, tuned, self.prompts, site)
            found = {"answers": answers, "fine-tune": dataclasses.replace(moved, origin="fine-tune")}
            for name in self.config.traits:
                trait = read_trait(name)
                if trait.name != ORGANISM_TRAIT or self.tunes.grid.own:
                    vector = persona_vector(self.start, trait, site, sampling=SHORT, seed=self.config.seed)
                    found[trait.name] = dataclasses.replace(vector.direction, origin=trait.name)
            save_directions(list(found.values()), folder / f"{site}.safetensors")

    def _validate(self, kinds: Mapping[str, Sequence[Direction]], folder: Path) -> None:
        """Where, and how, each kind of direction is read: as finds most of the poison of the validation mix."""
        data, poison = self.mixed(self.config.validation, self.config.dose, 0)
        own = self._own(data)
        chosen = {}
        for kind, directions in kinds.items():
            tried = []
            for direction in directions:
                for pool in ("mean", "max"):
                    screen = projection_difference(self.start, data, direction, own, pool)
                    tried.append((_ranks(screen, poison), str(direction.site), pool))
            _, site, pool = max(tried, key=lambda one: one[0])
            chosen[kind] = [site, pool]
            self.here.log(f"{kind}: read at {site}, {pool}")
        artifacts.write_json(folder / DONE, chosen)

    def _ways(self, kinds: Mapping[str, Sequence[Direction]], chosen: Mapping[str, Sequence[str]]) -> dict[str, Rank]:
        """All ways of ranking, by name."""
        bad, good = self.source(0)
        texts = [e.answer for part in (bad, good) for e in part.examples]
        words = fit_words(texts, np.array([True] * len(bad) + [False] * len(good)), self.config.seed)
        ways: dict[str, Rank] = {}
        for kind, (site, pool) in chosen.items():
            (direction,) = (d for d in kinds[kind] if str(d.site) == site)
            ways[kind] = _projecting(self.start, direction, pool)  # type: ignore[arg-type]
        ways["bag of words"] = lambda data, own: lexical(data, words.of_texts)
        ways["rare words"] = lambda data, own: lexical(data, rare_words)
        ways["loss"] = lambda data, own: loss_difference(self.start, data)
        ways["loss less own"] = lambda data, own: loss_difference(self.start, data, own)
        return ways

    def _screen(self, of: Mix, seed: int, ways: Mapping[str, Rank], folder: Path) -> None:
        data, poison = self.mixed(of, self.config.dose, seed)
        own = self._own(data)
        shares = {by: rank(data, own).recall(poison, self.config.times) for by, rank in ways.items()}
        self.here.log(f"{of.poison} in {of.good}: " + ", ".join(f"{by} {x:.1%}" for by, x in shares.items()))
        artifacts.write_json(folder / DONE, shares)

    def _sets(self, ways: Mapping[str, Rank], folder: Path) -> None:
        truth: dict[str, bool | None] = {}
        for of in self.config.mixes:
            truth |= {of.poison: True, of.good: False}
        truth |= dict.fromkeys(self.config.sets)
        found = []
        for name, poison in truth.items():
            # A fifth of the rows tells a mean well enough. Rare words are rare among other examples of the same set.
            data = Dataset.of(self._set(name, self.config.seed).examples[: max(10, self.config.rows // 5)], name)
            own = self._own(data)
            means = {by: rank(data, own).mean for by, rank in ways.items() if by != "rare words"}
            found.append(RankedSet(name, poison, means))
        artifacts.write_json(folder / DONE, found)

    def _blame(self, of: Mix, seed: int, folder: Path) -> None:
        config = self.config
        data, poison = self.mixed(of, config.blame_dose, seed)
        tuned = self._tuned(data, of.poison, seed)
        monitor = self._monitor()
        before = float(monitor.read(self.start, self.tunes.grid.discovery).mean())
        reached = [self.start, *(model for _, model in tuned.checkpoints)]
        n = int(poison.sum())
        ways = {
            "gradients": blame(reached, monitor, self.prompts, data, config.recipe.modules),
            "change of reading": reading_change(self.start, tuned.model, monitor, data),
            "loss before": loss_difference(self.start, data),
        }
        recall = {by: screen.recall(poison, 1.0) for by, screen in ways.items()}
        out = {"all": np.zeros(len(data), dtype=bool), "blamed": ways["gradients"].flagged(n)}
        out["random"] = np.isin(np.arange(len(data)), np.random.default_rng(seed).permutation(len(data))[:n])
        out["poison"] = poison
        removals = []
        for without, gone in out.items():
            kept = Dataset.of([e for e, left in zip(data.examples, gone, strict=True) if not left], without)
            again = tuned if without == "all" else self._tuned(kept, without, seed)
            reading = float(monitor.read(again.model, self.tunes.grid.discovery).mean()) - before
            how = config.answers
            said = sample(
                again.model, self.tunes.grid.test, how.per_question, seed, how.temperature, how.max_new_tokens
            )
            rate = score(said, self.tunes.grid.judge).misaligned
            removals.append(Removal(without, len(kept), reading, rate))
            self.here.log(f"{of.poison}, without {without}: monitor {reading:+.3f}, misaligned {rate}")
        artifacts.write_json(folder / DONE, Blamed(of.poison, seed, n, recall, tuple(removals)))

    # ------------------------------------------------------------------------------------------------ parts of them

    def source(self, seed: int) -> tuple[Dataset, Dataset]:
        """Bad and good data of the domain that directions and words come from."""
        return self._set(self.config.source.misaligned[0], seed), self._set(self.config.source.others[0], seed)

    def mixed(self, of: Mix, dose: float, seed: int) -> tuple[Dataset, np.ndarray]:
        """A mix, and (n,) bool: which of its rows are poison."""
        bad, good = self._set(of.poison, seed), self._set(of.good, seed)
        data = mix(bad, good, dose, min(self.config.rows, len(good)), seed)
        known = {_key(example) for example in bad}
        return data, np.array([_key(example) in known for example in data])

    def _set(self, name: str, seed: int) -> Dataset:
        if names_dataset(name):
            return drawn(dataset_place(name), self.config.rows, seed)
        return planted_set(name, self.config.rows, seed, self.start)

    def _own(self, data: Dataset) -> list[str]:
        return own_answers(self.start, data, self.config.seed, self.config.answers.max_new_tokens)

    def _answers_case(self, data: Dataset, misaligned: bool) -> LabelledEvidence:
        """A set's answers as the model reads them before training."""
        questions = [Question(str(i), self.config.source.domain, e.prompt) for i, e in enumerate(data)]
        read = evidence(self.start, questions, self.sites, [e.answer for e in data])
        return LabelledEvidence(read, np.full(len(read), misaligned), "start", self.config.source.domain)

    def _monitor(self) -> ActivationMonitor:
        """What is blamed for: the projection on the shift of the source's fine-tune, read at the header."""
        (tune, *_) = self.tunes.of([self.config.source], (self.config.seed,))
        asked = self.tunes.grid.discovery
        cases = [self.tunes.on_prompts(tune, asked, self.sites)]
        start = evidence(self.start, asked, self.sites)
        cases.append(LabelledEvidence(start, np.zeros(len(start), dtype=bool), "start", "start"))
        return fit_projection(cases, self.sites[-1])

    def _tuned(self, data: Dataset, name: str, seed: int) -> FineTuned:
        return finetune(self.start, data, self.config.recipe, seed, name=f"{name}-{seed}", progress=False)


def _projecting(model: LanguageModel, direction: Direction, pool: Pool) -> Rank:
    return lambda data, own: projection_difference(model, data, direction, own, pool)


def _ranks(screen: DataScreen, poison: np.ndarray) -> float:
    """AUROC: finer than the share found, which many choices reach alike."""
    return skill(screen.scores, poison, {}, resamples=0).auroc.auroc


def _key(example: Example) -> str:
    return json.dumps(example.messages, sort_keys=True)


def _plain(folder: Path) -> dict:
    return dict(artifacts.read_json(folder / DONE))


def _read_directions(folder: Path) -> dict[str, list[Direction]]:
    found: dict[str, list[Direction]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for direction in load_directions(path):
            found.setdefault(direction.origin, []).append(direction)
    return found


def _read_sets(folder: Path) -> tuple[RankedSet, ...]:
    return tuple(RankedSet(**raw) for raw in artifacts.read_json(folder / DONE))


def _read_blamed(folder: Path) -> Blamed:
    raw = artifacts.read_json(folder / DONE)
    removals = tuple(Removal(**{**r, "misaligned": Rate.of(r["misaligned"])}) for r in raw["removals"])
    return Blamed(**{**raw, "removals": removals})
