"""The stages of data screening: directions from one domain, mixes of others, whole datasets, and blame."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
from emlab.discovery import mean_difference
from emlab.discovery.persona_vectors import persona_vector
from emlab.discovery.traits import read_trait
from emlab.evaluation import Sampling
from emlab.experiments.data_screening.report import Blamed, DataScreenFindings, PoisonRecall, RankedSet, Removal
from emlab.experiments.finetuning.tunes import Tunes
from emlab.experiments.material.contrasts import ORGANISM_TRAIT
from emlab.experiments.material.levels import over, rate_over
from emlab.experiments.material.models import site_in
from emlab.experiments.material.sets import domain_of, fine_tuning_set
from emlab.interventions import Direction, load_directions, save_directions
from emlab.models import LanguageModel
from emlab.sites import Site
from emlab.training import FineTuned, finetune

if TYPE_CHECKING:
    from emlab.experiments.data_screening.config import Config, Mix

SHORT = Sampling(per_question=1, batch_size=64)
"""Of the answers that persona vectors are made from."""
Rank = Callable[[Dataset, Sequence[str]], DataScreen]
"""Scores examples, given the model's own answers to their prompts."""


class DataScreeningStages:
    """What all stages of a run share."""

    def __init__(self, config: Config, tunes: Tunes) -> None:
        self.config, self.tunes, self.run, self.start = config, tunes, tunes.run, tunes.start
        self.sites = tuple(site_in(text, self.start) for text in config.sites)
        self.bad, self.good = self._set(config.source.misaligned[0], 0), self._set(config.source.others[0], 0)

    def findings(self) -> DataScreenFindings:
        """All stages in order."""
        config, run = self.config, self.run
        directions = run.fill("directions", self._directions, _read_directions)
        chosen = run.stage("validation", partial(self._validate, directions), dict[str, tuple[str, Any]])
        ways = self._ways(directions, chosen)
        recalls: dict[tuple[str, str], dict[tuple[str, int], float]] = {}
        for of, seed in ((of, seed) for of in config.mixes for seed in map(config.reported, config.seeds)):
            stage = partial(self._screen, of, seed, ways)
            for by, share in run.stage(f"screens/{of.poison}-{seed}", stage, dict[str, float]).items():
                recalls.setdefault((of.kind, by), {})[of.poison, seed] = share
        sets = run.stage("sets", partial(self._sets, ways), tuple[RankedSet, ...])
        blamed = tuple(
            run.stage(f"blame/{of.poison}-{seed}", partial(self._blame, of, seed), Blamed)
            for of in config.blame
            for seed in map(config.reported, config.blame_seeds)
        )
        n = round(config.dose * config.rows)
        found = []
        for (kind, by), each in recalls.items():
            rate = rate_over((domain_of(poison), seed, share * n, n) for (poison, seed), share in each.items())
            mixes = over((domain_of(poison) for poison, _ in each), (seed for _, seed in each))
            shares = {f"{poison}-{seed}": share for (poison, seed), share in each.items()}
            found.append(PoisonRecall(by, by in directions, kind, rate, mixes, shares))
        read = {kind: f"{site}, {pool}" for kind, (site, pool) in chosen.items()}
        domain = config.source.domain
        return DataScreenFindings(config.model, domain, config.dose, config.times, read, tuple(found), sets, blamed)

    # ------------------------------------------------------------------------------------------------------- stages

    def _directions(self, folder: Path) -> None:
        """Each kind of direction at each site."""
        (tune, *_) = self.tunes.of([self.config.source], (self.config.seed,))
        tuned, domain = self.tunes.model(tune), self.config.source.domain
        cases = [
            answers_read(self.start, part, self.sites, flag, domain)
            for part, flag in ((self.bad, True), (self.good, False))
        ]
        for site in self.sites:
            answers = Direction(fit_projection(cases, site).reads.weights, site, "answers")  # type: ignore[union-attr]
            moved = mean_difference(self.start, tuned, self.tunes.grid.prompts, site)
            found = [answers, dataclasses.replace(moved, origin="fine-tune")]
            for trait in map(read_trait, self.config.traits):
                if trait.name != ORGANISM_TRAIT or self.tunes.grid.own:
                    vector = persona_vector(self.start, trait, site, sampling=SHORT, seed=self.config.seed)
                    found.append(dataclasses.replace(vector.direction, origin=trait.name))
            save_directions(found, folder / f"{site}.safetensors")

    def _validate(self, directions: Mapping[str, Sequence[Direction]]) -> dict[str, tuple[str, str]]:
        """Where, and how, each kind of direction is read: as finds most of the poison of the validation mix."""
        data, poison = self._mixed(self.config.validation, self.config.dose, 0)
        own, chosen = self._own(data), {}
        for kind, tried in directions.items():
            # AUROC: finer than the share found, which many choices reach alike.
            areas = {
                (str(direction.site), pool): skill(
                    projection_difference(self.start, data, direction, own, pool).scores, poison, {}, resamples=0
                ).auroc.auroc
                for direction in tried
                for pool in ("mean", "max")
            }
            chosen[kind] = max(areas, key=areas.__getitem__)
            self.run.log(f"{kind}: read at {', '.join(chosen[kind])}")
        return chosen

    def _ways(
        self, directions: Mapping[str, Sequence[Direction]], chosen: Mapping[str, tuple[str, Any]]
    ) -> dict[str, Rank]:
        """All ways of ranking, by name."""
        texts = [e.answer for part in (self.bad, self.good) for e in part.examples]
        labels = np.array([True] * len(self.bad) + [False] * len(self.good))
        words = fit_words(texts, labels, self.config.seed)
        ways: dict[str, Rank] = {}
        for kind, (site, pool) in chosen.items():
            (along,) = (d for d in directions[kind] if str(d.site) == site)
            ways[kind] = partial(_projected, self.start, along, pool)
        ways["bag of words"] = lambda data, own: lexical(data, words.of_texts)
        ways["rare words"] = lambda data, own: lexical(data, rare_words)
        ways["loss"] = lambda data, own: loss_difference(self.start, data)
        ways["loss less own"] = lambda data, own: loss_difference(self.start, data, own)
        return ways

    def _screen(self, of: Mix, seed: int, ways: Mapping[str, Rank]) -> dict[str, float]:
        data, poison = self._mixed(of, self.config.dose, seed)
        own = self._own(data)
        shares = {by: rank(data, own).recall(poison, self.config.times) for by, rank in ways.items()}
        self.run.log(f"{of.poison} in {of.good}: " + ", ".join(f"{by} {x:.1%}" for by, x in shares.items()))
        return shares

    def _sets(self, ways: Mapping[str, Rank]) -> tuple[RankedSet, ...]:
        truth: dict[str, bool | None] = {}
        for of in self.config.mixes:
            truth |= {of.poison: True, of.good: False}
        truth |= dict.fromkeys(self.config.sets)
        found = []
        for name, poison in truth.items():
            # A fifth of the rows tells a mean well enough. Rare words are rare among other examples of the same set.
            data = Dataset.of(
                self._set(name, self.config.reported(self.config.seed)).examples[: max(10, self.config.rows // 5)], name
            )
            own = self._own(data)
            means = {by: rank(data, own).mean for by, rank in ways.items() if by != "rare words"}
            found.append(RankedSet(name, poison, means))
        return tuple(found)

    def _blame(self, of: Mix, seed: int) -> Blamed:
        config, grid = self.config, self.tunes.grid
        data, poison = self._mixed(of, config.blame_dose, seed)
        tuned, monitor = self._tuned(data, of.poison, seed), self._monitor()
        before = float(monitor.read(self.start, grid.discovery).mean())
        reached = [self.start, *(model for _, model in tuned.checkpoints)]
        n = int(poison.sum())
        ways = {
            "gradients": blame(reached, monitor, grid.prompts, data, config.recipe.modules),
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
            reading = float(monitor.read(again.model, grid.discovery).mean()) - before
            rate = grid.asked(again.model, seed).misaligned
            removals.append(Removal(without, len(kept), reading, rate))
            self.run.log(f"{of.poison}, without {without}: monitor {reading:+.3f}, misaligned {rate}")
        return Blamed(of.poison, seed, n, recall, tuple(removals))

    # ------------------------------------------------------------------------------------------------ parts of them

    def _mixed(self, of: Mix, dose: float, seed: int) -> tuple[Dataset, np.ndarray]:
        """A mix, and (n,) bool: which of its rows are poison."""
        bad, good = self._set(of.poison, seed), self._set(of.good, seed)
        data = mix(bad, good, dose, min(self.config.rows, len(good)), seed)
        known = set(map(_key, bad))
        return data, np.array([_key(example) in known for example in data])

    def _set(self, name: str, seed: int) -> Dataset:
        return fine_tuning_set(name, self.config.rows, seed, self.start)

    def _own(self, data: Dataset) -> list[str]:
        return own_answers(self.start, data, self.config.seed, self.config.answers.max_new_tokens)

    def _monitor(self) -> ActivationMonitor:
        """What is blamed for: the projection on the shift of the source's fine-tune, read at the header."""
        (tune, *_) = self.tunes.of([self.config.source], (self.config.seed,))
        asked = self.tunes.grid.discovery
        cases = [self.tunes.on_prompts(tune, asked, self.sites), self.tunes.start_on_prompts(asked, self.sites)]
        return fit_projection(cases, self.sites[-1])

    def _tuned(self, data: Dataset, name: str, seed: int) -> FineTuned:
        return finetune(self.start, data, self.config.recipe, seed, name=f"{name}-{seed}", progress=False)


def answers_read(
    model: LanguageModel, data: Dataset, sites: Sequence[Site], misaligned: bool, domain: str
) -> LabelledEvidence:
    """A set's answers as the model reads them before training.

    Args:
        model: That is to be trained.
        data: The set.
        sites: Where it is read.
        misaligned: Whether the set is bad.
        domain: Of the set.
    """
    questions = [Question(str(i), domain, example.prompt) for i, example in enumerate(data)]
    read = evidence(model, questions, sites, [example.answer for example in data])
    return LabelledEvidence(read, np.full(len(read), misaligned), "start", domain)


def _projected(model: LanguageModel, along: Direction, pool: Any, data: Dataset, own: Sequence[str]) -> DataScreen:
    return projection_difference(model, data, along, own, pool)


def _key(example: Example) -> str:
    return json.dumps(example.messages, sort_keys=True)


def _read_directions(folder: Path) -> dict[str, list[Direction]]:
    found: dict[str, list[Direction]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for direction in load_directions(path):
            found.setdefault(direction.origin, []).append(direction)
    return found
