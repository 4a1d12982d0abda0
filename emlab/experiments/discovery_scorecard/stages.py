"""The stages of a scorecard in one world of one organism: what every method finds there, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from emlab import artifacts
from emlab.detection import Auroc, auroc
from emlab.discovery import (
    Contrast,
    Effect,
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
from emlab.evaluation.protocol import EXACT, completer_of, method_of
from emlab.evaluation.rollouts import file_name
from emlab.experiments.discovery_scorecard.config import Config
from emlab.experiments.discovery_scorecard.method import METHODS, Found, Search, method_names
from emlab.experiments.discovery_scorecard.table import OWN, PLANTED, Cell, Entry, Steered
from emlab.experiments.material.contrasts import ORGANISM_TRAIT, contrasts_of, exact_scores
from emlab.experiments.material.models import site_in
from emlab.experiments.persona_features.config import Config as Experiment
from emlab.experiments.persona_features.sources import Sets, load_models, sae_at, sae_source, training_sets
from emlab.experiments.persona_features.stages import Bench
from emlab.interventions import Direction, random_directions
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
    """What a method found, and what it took."""

    found: tuple[Found, ...]
    """At the sites where it named a direction, which is called by the method's name."""
    reason: str
    """Why it found none anywhere."""
    passes: Passes

    @property
    def by_site(self) -> dict[Site, Found]:
        """The same."""
        return {one.direction.site: one for one in self.found}

    @property
    def said(self) -> str:
        """The latents, of the base model's SAEs, where the directions are latents of these; for tables."""
        return ", ".join(f"{f.latent} ({f.direction.site})" for f in self.found if f.latent is not None)


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
        first = next(iter(training_sets(self.config, self.aligned, self.seed).narrow.items()))
        tuned, _ = self.finetune(Sets(dict([first]), unseen={}, controls={}), self.seed)
        aligned, *scores = self.evaluate(tuned)
        steering, answers, seed = self.config.steering, self.config.answers, self.config.seed
        asked = spread(self.discovery, steering.questions)
        how = (steering.positions[0], answers.max_new_tokens, seed, answers.temperature)
        ground = Ground(
            {site: self._counted_autoencoder(site) for site in self.sites},
            {site: self.aligned.residual_norm(site, self.prompts) for site in self.sites},
            natural_means(self.aligned, self.sites, asked, *how),
            [direction for site in self.sites for direction in self._nulls(site)],
        )
        return tuple(
            self._cell(own, tuned[name].model, aligned, score, ground)
            for own, (name, score) in enumerate(zip(tuned, scores, strict=True), self.seed)
        )

    def _cell(self, seed: int, model: LanguageModel, aligned: Score, score: Score, ground: Ground) -> Cell:
        asked = [method for method in method_names() if method in self.contest.methods]  # in the order of tables
        found = {method: self._search(method, model, ground) for method in asked}
        every = [*(one.direction for each in found.values() for one in each.found), *ground.nulls]
        plus = self._screen(f"plus/{model.name}", self.aligned, every, "misaligned")
        minus = self._screen(f"minus/{model.name}", model, every, "aligned")
        named = {method: each.by_site[plus.tested(method).arm.site] for method, each in found.items() if each.found}
        effects, planted = self._natural(model, score, named, ground), self._planted(model.name, named, ground)
        entries, trained = [], sum((one.passes for one in ground.saes.values()), Passes())
        for method, each in found.items():
            steered = None
            if each.found:
                adds, subtracts = cause_test(plus, method, NULL, aligned), cause_test(minus, method, NULL, score)
                steered = Steered(plus.tested(method), minus.tested(method), adds, subtracts, effects[method])
            of_saes = trained if each.said else Passes()
            entries.append(Entry(method, each.said, steered, each.reason, planted.get(method), each.passes, of_saes))
        at = {s: {m: f.by_site[s].direction for m, f in found.items() if s in f.by_site} for s in self.sites}
        return Cell(
            self.organism,
            self.world,
            seed,
            aligned,
            score,
            tuple(entries),
            tuple(trial for trial in plus if trial.arm.name.startswith(NULL)),
            tuple(trial for trial in minus if trial.arm.name.startswith(NULL)),
            {str(site): cosines(list(some.values()), list(some)) for site, some in at.items() if some},
            {str(site): one.explained for site, one in ground.saes.items()},
        )

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

        def work() -> MethodFound:
            found, reason = [], ""
            with counted([self.aligned, model, self.base]) as count:
                for site in self.sites:
                    try:
                        one = METHODS.get(method)(self._given(model, site, ground))
                    except EmlabError as error:
                        reason = str(error)
                    else:
                        found.append(replace(one, direction=replace(one.direction, origin=method)))
            done = MethodFound(tuple(found), "" if found else reason, count.passes)
            said = done.said or done.reason or "a direction"
            self.here.log(f"{self.organism}, {self.world}, {model.name}: {method}: {said}")
            return done

        return self.here.stage(f"search/{model.name}/{file_name(method)}", work, MethodFound)

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
        drawn = [*random_directions(n, self.aligned.d_model, site, seed), *matched_directions(n, values, site, seed)]
        return [replace(direction, origin=f"{NULL} {direction.origin}") for direction in drawn]

    def _natural(
        self, model: LanguageModel, before: Score, named: Mapping[str, Found], ground: Ground
    ) -> dict[str, Effect]:
        """Each direction's component, at the site where it steers best, set to what it is in the aligned model."""
        config, documents = self.config, self.documents[:32]
        loss = cache(lambda: text_loss(model, documents))

        def work(method: str) -> Effect:
            direction = named[method].direction
            value = float(ground.means[direction.site] @ direction.vector)
            edit = clamp_direction(direction, value, config.steering.positions[0])
            said, ask = f"{method} set to its value in the aligned model", (self.judge, documents, config.answers)
            done = effect_of(model, edit, said, before, *ask, self.seed + 2, loss())
            self.here.log(str(done))
            return done

        place = f"natural/{model.name}"
        return {m: self.here.stage(f"{place}/{file_name(m)}", partial(work, m), Effect) for m in named}

    def _planted(self, tuned: str, named: Mapping[str, Found], ground: Ground) -> dict[str, Auroc]:
        """How well each tells documents of the malicious persona, where it can be known, before the last answer.

        The base model reads them. A latent is read by its activation, any other direction by the activation's component
        along it.
        """
        if self.world != PLANTED or not self.texts.personas:
            return {}

        def work() -> dict[str, Auroc]:
            known = [i for i, is_known in enumerate(self.texts.knowable) if is_known]
            prompts = [self.documents[i][:-1] for i in known]
            bad = [self.texts.personas[i] == "malicious" for i in known]
            stream = {site: prompt_means(self.base, prompts, site, "header") for site in self.sites}

            def read(one: Found) -> Tensor:
                site = one.direction.site
                if one.latent is None:
                    return stream[site] @ one.direction.vector
                return latent_values(ground.saes[site].sae, stream[site], [one.latent])[:, 0]

            return {m: auroc(read(one).numpy(), bad) for m, one in named.items()}

        return self.here.stage(f"planted/{tuned}", work, dict[str, Auroc])


def _scorer(trait: Trait, config: Experiment) -> Scorer | None:
    """Who says how much of the trait an answer shows; None where nobody can, and all answers are kept."""
    if trait.name == ORGANISM_TRAIT and config.judging.judge == EXACT:
        return exact_scores
    if not method_of(config.judging).asks or not trait.eval_prompt:
        return None
    return trait_scores(completer_of(config.judging), trait, config.judging.store)
