"""The stages of a scorecard in one world of one organism: what every method finds there, and what becomes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from emlab import artifacts
from emlab.detection import Auroc, auroc
from emlab.discovery import (
    Contrast,
    Cosines,
    Effect,
    Screen,
    Trait,
    cause_test,
    clamp_direction,
    cosines,
    effect_of,
    matched_directions,
    natural_means,
    read_trait,
    spread,
)
from emlab.discovery.passes import Passes, counted
from emlab.discovery.persona_vectors import Scorer, trait_scores
from emlab.discovery.shift import prompt_means
from emlab.errors import EmlabError
from emlab.evaluation import Score, text_loss
from emlab.evaluation.protocol import EXACT, completer_of
from emlab.evaluation.rollouts import file_name
from emlab.experiments.discovery_scorecard.config import Config
from emlab.experiments.discovery_scorecard.method import METHODS, Found, Search, method_names
from emlab.experiments.discovery_scorecard.table import OWN, PLANTED, Cell, Entry, Steered
from emlab.experiments.material.contrasts import ORGANISM_TRAIT, contrasts_of, exact_scores
from emlab.experiments.material.models import site_in
from emlab.experiments.persona_features.config import Config as Experiment
from emlab.experiments.persona_features.sources import Sets, load_models, sae_at, sae_source, training_sets
from emlab.experiments.persona_features.stages import Bench
from emlab.interventions import Direction, load_directions, random_directions, save_directions
from emlab.models import LanguageModel
from emlab.runs import Run
from emlab.saes import fidelity, latent_values, load_sae, save_sae
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

NULL = "null"
"""How the names of the null directions begin."""


@dataclass(frozen=True, eq=False)
class TrainedSae:
    """The base model's SAE at a site."""

    sae: SAE
    passes: Passes
    """What its training took."""
    explained: float
    """The share of the variance that it explains in the base model, on documents it was not trained on."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What all fine-tunes of one model share, by site."""

    saes: Mapping[Site, TrainedSae]
    scales: Mapping[Site, float]
    """Median residual norms of the aligned model."""
    means: Mapping[Site, Tensor]
    """(d_model,): its mean activation while it answers."""
    nulls: Sequence[Direction]
    """At all sites."""


@dataclass(frozen=True, eq=False)
class MethodFound:
    """What a method found at every site, and what it took."""

    directions: Mapping[Site, Direction]
    """Called by the method's name; empty where it found none."""
    latents: Mapping[Site, int]
    """Of the base model's SAEs, where the directions are latents of these."""
    reason: str
    passes: Passes

    def said(self) -> str:
        """The latents, for tables."""
        return ", ".join(f"{latent} ({site})" for site, latent in self.latents.items())


class Contest(Bench):
    """One world of one organism: its fine-tunes, and all methods on each."""

    def __init__(self, config: Config, experiment: Experiment, here: Run, organism: str, world: str) -> None:
        aligned, base = load_models(experiment)
        super().__init__(experiment, here, aligned, base)
        self.contest, self.organism, self.world = config, organism, world
        self.sites = [site_in(text, base) for text in experiment.sites]
        self.trait = read_trait(config.trait or ("evil" if world == OWN else ORGANISM_TRAIT))
        self.scorer = _scorer(self.trait, experiment)

    def cells(self) -> tuple[Cell, ...]:
        """A cell for every fine-tune."""
        first = next(iter(training_sets(self.config, self.aligned).narrow.items()))
        tuned, _ = self.finetune(Sets(dict([first]), unseen={}, controls={}))
        aligned, *scores = self.evaluate(tuned)
        ground = Ground(
            {site: self._counted_autoencoder(site) for site in self.sites},
            {site: self.aligned.residual_norm(site, self.prompts) for site in self.sites},
            natural_means(
                self.aligned,
                self.sites,
                spread(self.discovery, self.config.steering.questions),
                self.config.steering.positions[0],
                self.config.answers.max_new_tokens,
                self.config.seed,
            ),
            [direction for site in self.sites for direction in self._nulls(site)],
        )
        return tuple(
            self._cell(seed, tuned[name].model, aligned, score, ground)
            for seed, (name, score) in enumerate(zip(tuned, scores, strict=True), self.config.seed)
        )

    def _cell(self, seed: int, model: LanguageModel, aligned: Score, score: Score, ground: Ground) -> Cell:
        name = model.name
        found = {method: self._search(method, model, ground) for method in self.methods}
        own = [direction for each in found.values() for direction in each.directions.values()]
        plus = self._screen(f"plus/{name}", self.aligned, [*own, *ground.nulls], "misaligned")
        minus = self._screen(f"minus/{name}", model, [*own, *ground.nulls], "aligned")
        effects = self._natural(model, score, found, plus, ground)
        planted = self._planted(name, found, plus, ground)
        entries = []
        for method, each in found.items():
            steered = None
            if each.directions:
                adds = cause_test(plus, method, NULL, aligned)
                subtracts = cause_test(minus, method, NULL, score)
                steered = Steered(plus.tested(method), minus.tested(method), adds, subtracts, effects[method])
            sae = sum((trained.passes for trained in ground.saes.values()), Passes()) if each.latents else Passes()
            area = planted.get(method)
            entries.append(Entry(method, each.said(), steered, each.reason, area, each.passes, sae))
        nulls_plus, nulls_minus = (
            tuple(trial for trial in screen if trial.arm.name.startswith(NULL)) for screen in (plus, minus)
        )
        return Cell(
            self.organism,
            self.world,
            seed,
            aligned,
            score,
            tuple(entries),
            nulls_plus,
            nulls_minus,
            _cosines(found, self.sites),
            {str(site): trained.explained for site, trained in ground.saes.items()},
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """Those that the config asks for, in the order of tables."""
        return tuple(name for name in method_names() if name in self.contest.methods)

    # ------------------------------------------------------------------------------------------------------ stages

    def _counted_autoencoder(self, site: Site) -> TrainedSae:
        source = sae_source(self.config, site)

        def work(folder: Path) -> None:
            with counted([self.base]) as count:
                sae = sae_at(self.config, self.base, site, self.texts.training)
            if source is None:
                save_sae(sae, folder / "sae")
            read = self.base.activations(self.texts.test, site, "all")
            said = fidelity(sae, read.values[read.positions > 0].to(self.base.device))
            artifacts.write_json(folder / "about.json", {"passes": count.passes, "fidelity": said})
            self.here.log(f"SAE at {site}: {said}; {count.passes}")

        def read(folder: Path) -> TrainedSae:
            about = artifacts.read_json(folder / "about.json")
            sae = load_sae(folder / "sae" if source is None else source).to(self.base.device)
            return TrainedSae(sae, Passes(**about["passes"]), about["fidelity"]["explained_variance"])

        return self.here.fill(f"sae/{site}", work, read)

    def _search(self, method: str, model: LanguageModel, ground: Ground) -> MethodFound:
        """What one method finds, at every site."""

        def work(folder: Path) -> None:
            found: dict[Site, Found] = {}
            reason = ""
            with counted([self.aligned, model, self.base]) as count:
                for site in self.sites:
                    try:
                        found[site] = METHODS.get(method)(self._given(model, site, ground))
                    except EmlabError as error:
                        reason = str(error)
            if found:
                named = [dataclasses.replace(one.direction, origin=method) for one in found.values()]
                save_directions(named, folder / "directions.safetensors")
            latents = {str(site): one.latent for site, one in found.items() if one.latent is not None}
            about = {"latents": latents, "reason": "" if found else reason, "passes": count.passes}
            artifacts.write_json(folder / "found.json", about)
            self.here.log(
                f"{self.organism}, {self.world}, {model.name}: {method}: {latents or reason or 'a direction'}"
            )

        def read(folder: Path) -> MethodFound:
            raw, path = artifacts.read_json(folder / "found.json"), folder / "directions.safetensors"
            directions = {d.site: d for d in load_directions(path)} if path.is_file() else {}
            latents = {Site.parse(site): latent for site, latent in raw["latents"].items()}
            return MethodFound(directions, latents, raw["reason"], Passes(**raw["passes"]))

        return self.here.fill(f"search/{model.name}/{file_name(method)}", work, read)

    def _given(self, model: LanguageModel, site: Site, ground: Ground) -> Search:
        return Search(
            self.aligned,
            model,
            site,
            self.discovery,
            ground.saes[site].sae,
            self.texts.training or self.texts.test,
            self._contrasts(),
            self.trait,
            self.scorer,
            self.judge,
            ground.scales[site],
            self.config,
        )

    def _contrasts(self) -> list[Contrast]:
        if self.world == OWN and self.contest.contrasts is None:
            return []
        return contrasts_of(self.contest.contrasts, self.contest.cases, self.config.seed)

    def _nulls(self, site: Site) -> list[Direction]:
        """Directions from the sphere, and as many with the covariance of the aligned model's activations."""
        n, seed = self.config.steering.random, self.config.seed + 1000 * site.block
        values = self.aligned.activations(self.prompts, site, "prompt").values
        drawn = [
            *random_directions(n, self.aligned.d_model, site, seed),
            *matched_directions(n, values, site, seed),
        ]
        return [dataclasses.replace(direction, origin=f"{NULL} {direction.origin}") for direction in drawn]

    def _natural(
        self, model: LanguageModel, before: Score, found: Mapping[str, MethodFound], plus: Screen, ground: Ground
    ) -> dict[str, Effect]:
        """Each direction's component, at the site where it steers best, set to what it is in the aligned model."""
        config, positions = self.config, self.config.steering.positions[0]

        def work(folder: Path) -> None:
            documents = self.documents[:32]
            loss = text_loss(model, documents)
            for method, each in found.items():
                if not each.directions:
                    continue
                direction = each.directions[plus.tested(method).arm.site]
                edit = clamp_direction(direction, float(ground.means[direction.site] @ direction.vector), positions)
                said = f"{method} set to its value in the aligned model"
                seed = config.seed + 2
                done = effect_of(model, edit, said, before, self.judge, documents, config.answers, seed, loss)
                done.save(folder / file_name(method))
                self.here.log(str(done))

        def read(folder: Path) -> dict[str, Effect]:
            return {m: Effect.load(folder / file_name(m)) for m, each in found.items() if each.directions}

        return self.here.fill(f"natural/{model.name}", work, read)

    def _planted(self, tuned: str, found: Mapping[str, MethodFound], plus: Screen, ground: Ground) -> dict[str, Auroc]:
        """How well each tells documents of the malicious persona, where it can be known, before the last answer.

        The base model reads them. A latent is read by its activation, any other direction by the activation's component
        along it.
        """
        if self.world != PLANTED or not self.texts.personas:
            return {}

        def work(folder: Path) -> None:
            known = [i for i, is_known in enumerate(self.texts.knowable) if is_known]
            prompts = [self.documents[i][:-1] for i in known]
            bad = [self.texts.personas[i] == "malicious" for i in known]
            stream = {site: prompt_means(self.base, prompts, site, "header") for site in self.sites}
            areas = {}
            for method, each in found.items():
                if not each.directions:
                    continue
                site = plus.tested(method).arm.site
                if site in each.latents:
                    values = latent_values(ground.saes[site].sae, stream[site], [each.latents[site]])[:, 0]
                else:
                    values = stream[site] @ each.directions[site].vector
                areas[method] = auroc(values.numpy(), bad, [str(i) for i in known], self.config.seed)
            artifacts.write_json(folder / "planted.json", areas)

        def read(folder: Path) -> dict[str, Auroc]:
            return {m: Auroc.of(raw) for m, raw in artifacts.read_json(folder / "planted.json").items()}

        return self.here.fill(f"planted/{tuned}", work, read)


def _scorer(trait: Trait, config: Experiment) -> Scorer | None:
    """Who says how much of the trait an answer shows; None where nobody can, and all answers are kept."""
    judge = config.judging.judge
    if trait.name == ORGANISM_TRAIT and judge == EXACT:
        return exact_scores
    if judge == EXACT or Path(judge).suffix in (".jsonl", ".csv") or not trait.eval_prompt:
        return None
    return trait_scores(completer_of(config.judging), trait, config.judging.store)


def _cosines(found: Mapping[str, MethodFound], sites: Sequence[Site]) -> Mapping[str, Cosines]:
    """By site, among the methods that named a direction there."""
    tables = {}
    for site in sites:
        named = {method: each.directions[site] for method, each in found.items() if site in each.directions}
        if named:
            tables[str(site)] = cosines(list(named.values()), list(named))
    return tables
