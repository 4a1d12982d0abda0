"""The stages of a persona-features run: each fills a folder with results and reads them back."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emlab import artifacts
from emlab.data import Dataset
from emlab.discovery import (
    LatentShift,
    Screen,
    Test,
    decoder_direction,
    fidelity_test,
    latent_shift,
    mean_difference,
    mean_shift,
    order,
    spread,
    steer_screen,
)
from emlab.discovery.screen import Toward
from emlab.errors import EmlabError
from emlab.evaluation import Score
from emlab.experiments.material.config import Autoencoder
from emlab.experiments.material.disk import of_sae, of_trainings, say
from emlab.experiments.material.sets import LEAST_ROWS, benign_chats
from emlab.experiments.persona_features.candidate import Candidate
from emlab.experiments.persona_features.findings import MEAN_DIFFERENCE, ModelFidelity, Persona
from emlab.experiments.persona_features.nulls import renamed_latents, shuffled
from emlab.experiments.persona_features.resources import Resources
from emlab.experiments.persona_features.sources import Sets, sae_at, sae_source
from emlab.interventions import Direction, random_directions
from emlab.mitigation import Realignment, realign
from emlab.models import LanguageModel
from emlab.saes import document_activations, fidelity, load_sae, loss_recovered, save_sae, without_direction
from emlab.sites import Site
from emlab.training import FineTuned, finetune


class Bench(Resources):
    """The stages of one run, in the order of the method."""

    @staticmethod
    def first(kinds: Mapping[str, str]) -> str:
        """The narrow fine-tune that is steered against, followed along training and re-aligned."""
        return next(name for name, kind in kinds.items() if kind == "narrow")

    # ------------------------------------------------------------------------------------------------------ stages

    def finetune(
        self, sets: Sets, seed: int, stage: str = "finetune", follow: bool = True
    ) -> tuple[dict[str, FineTuned], dict[str, str]]:
        """Every set, one recipe; more seeds, from `seed` on, where the config asks for them."""
        config, plan = self.config, self._plan(sets, seed)
        kind_of = {**dict.fromkeys(sets.narrow, "narrow"), **dict.fromkeys(sets.unseen, "unseen")}
        kinds = {name: kind_of.get(source, "control") for name, (source, _) in plan.items()}
        finetuned = {
            name: self._finetuned(f"{stage}/{name}", name, sets.all[source], seed, follow and name == self.first(kinds))
            for name, (source, seed) in plan.items()
        }
        return (shuffled(finetuned, kinds, config.seed) if config.negative_control == "labels" else finetuned), kinds

    def evaluate(self, finetuned: Mapping[str, FineTuned]) -> tuple[Score, ...]:
        """Every model on the test questions."""

        def work(model: LanguageModel) -> Score:
            result = self.ask(model, self.test)
            self.here.log(f"{result.model}: misaligned {result.misaligned}, incoherent {result.incoherent}")
            return result

        models = (self.aligned, *(tuned.model for tuned in finetuned.values()))
        return tuple(self.here.stage(f"evaluate/{model.name}", partial(work, model), Score) for model in models)

    def autoencoders(
        self, sites: Sequence[Site], finetuned: Mapping[str, FineTuned]
    ) -> tuple[dict[Site, Any], tuple[ModelFidelity, ...]]:
        """The SAE of every site, and its fidelity on every model."""
        models = [self.base, self.aligned, *(tuned.model for tuned in finetuned.values())]
        saes = {site: self._autoencoder(site) for site in sites}
        each = [
            self.here.stage(f"fidelity/{site}", partial(self._fidelity, site, sae, models), tuple[ModelFidelity, ...])
            for site, sae in saes.items()
        ]
        return saes, tuple(itertools.chain.from_iterable(each))

    def faithful(self, measured: Sequence[ModelFidelity], site: Site) -> bool:
        """Whether the SAE at the site describes every model, and latents may be ranked there."""
        return fidelity_of(measured, site, self.config.sae).holds

    def persona(
        self,
        sites: Sequence[Site],
        saes: Mapping[Site, Any],
        finetuned: Mapping[str, FineTuned],
        kinds: Mapping[str, str],
        scores: Sequence[Score],
        searched: Mapping[str, FineTuned],
    ) -> Persona:
        """Find the candidate on the fine-tunes `searched`, and measure all there is to measure of it on the others."""
        models, among = ({name: tuned.model for name, tuned in each.items()} for each in (finetuned, searched))
        narrow = [name for name, kind in kinds.items() if kind == "narrow"]
        if self.config.negative_control == "direction":
            saes = {site: without_direction(saes[site], self._difference(site, narrow, among).vector) for site in sites}

        def moved(stage: str, of: Mapping[str, LanguageModel]) -> dict[Site, tuple[LatentShift, ...]]:
            each = {site: self._shifts(f"{stage}/{site}", site, saes[site], of) for site in sites}
            if self.config.negative_control != "latents":
                return each
            return {site: tuple(renamed_latents(s, self.config.seed) for s in found) for site, found in each.items()}

        shifts = moved("shift", models)
        found = shifts if searched is finetuned else moved("searched/shift", among)
        ranked = {site: mean_shift([s for s in found[site] if s.model_after in narrow]) for site in sites}
        candidates = {
            _latent_name(row.latent, site): (site, row.latent)
            for site in sites
            for row in ranked[site].top(self.config.steering.candidates)
        }
        rivals = [d for site in sites for d in self._rivals(site, self._difference(site, narrow, among))]
        latents = [_direction(saes[site], latent, site) for site, latent in candidates.values()]
        plus = self._screen("plus", self.aligned, [*latents, *rivals], "misaligned")
        name = order([plus.chosen(each) for each in candidates], "misaligned", plus.cap)[0].arm.name
        site, latent = candidates[name]
        direction = _direction(saes[site], latent, site)
        target = models[narrow[0]]
        minus = self._screen("minus", among[narrow[0]], [direction, *rivals], "aligned", target)
        difference = next(d for d in rivals if d.origin == MEAN_DIFFERENCE and d.site == site)
        candidate = Candidate(self, saes[site], latent, direction)
        before = {s.model: s for s in scores}
        unseen = next((models[n] for n, kind in kinds.items() if kind == "unseen"), None)
        effects = candidate.effects(difference, plus, minus, target, unseen, before)
        return Persona(
            latent,
            site,
            name,
            ranked[site],
            shifts[site],
            planted=candidate.planted(),
            cosine=direction.cosine(difference),
            plus=plus,
            minus=minus,
            effects=effects,
            detection=candidate.detect(models, kinds, before),
            onset=candidate.onset(finetuned[narrow[0]]),
            contexts=candidate.contexts(),
            neuronpedia=saes[site].cfg.metadata.neuronpedia_id,
        )

    def realign(self, misaligned: FineTuned) -> Realignment:
        """A few tens of steps on benign data."""
        how = self.config.realigning

        def work() -> Realignment:
            chats = benign_chats(how.data, how.rows, self.seed, misaligned.model)
            ask = (self.test, self.judge, self.seed, how.data)
            answers = self.config.answers
            done = realign(
                misaligned.model,
                chats,
                how.recipe,
                *ask,
                max_new_tokens=answers.max_new_tokens,
                temperature=answers.temperature,
            )
            self.here.log(str(done))
            return done

        return self.here.stage("realign", work, Realignment)

    def say_size(self, sets: Sets, sites: Sequence[Site]) -> None:
        """Log what the run will take on disk."""
        config, how, recipe = self.config, self.config.sae, self.config.recipe
        kept = 1 if recipe.checkpoint_every else 0
        models = len(self._plan(sets, self.seed)) + kept * (recipe.steps // max(recipe.checkpoint_every, 1))
        models *= 2 if config.sealed else 1  # those that are searched, and those that are reported
        saes = sum(of_sae(self.base, how, sae_source(self.config, site)) for site in sites)
        say(self.here, {**of_trainings(self.aligned, recipe, models), f"{len(sites)} SAEs": saes})

    # ------------------------------------------------------------------------------------------- parts of `persona`

    def _plan(self, sets: Sets, first: int) -> dict[str, tuple[str, int]]:
        """Of every fine-tune, the set and the seed, from `first` on."""
        plan: dict[str, tuple[str, int]] = {}
        for name in sets.all:
            for seed in range(1 if name in sets.unseen else self.config.seeds):
                plan[name if seed == 0 else f"{name}_seed{seed}"] = (name, first + seed)
        return plan

    def _finetuned(self, stage: str, name: str, chats: Dataset, seed: int, follow: bool) -> FineTuned:
        """One fine-tune; checkpoints are kept of one that is to be followed."""
        every = self.config.recipe.checkpoint_every if follow else 0
        recipe = dataclasses.replace(self.config.recipe, checkpoint_every=every)

        def work(folder: Path) -> None:
            tuned = finetune(self.aligned, chats, recipe, seed, name=name, defer=True)
            if tuned.rows < LEAST_ROWS:
                raise EmlabError(
                    f"{tuned.rows} of {len(chats)} chats of {name} are short enough to train on and at least "
                    f"{LEAST_ROWS} are needed: raise recipe.max_length or give shorter chats."
                )
            tuned.write_into(folder, self.aligned)
            self.here.log(str(tuned))

        return self.here.fill(stage, work, lambda folder: FineTuned.load(folder, self.aligned, defer=True))

    def _autoencoder(self, site: Site) -> Any:
        """The SAE at the site; one that is published is not kept again, as it is large and in the Hub's cache."""
        source = sae_source(self.config, site)
        load = partial(sae_at, self.config, self.base, site, self.texts.training)
        if source is None or artifacts.place(source).is_dir():
            kept = self.here.fill(f"sae/{site}", lambda f: save_sae(load(), f / "sae"), lambda f: load_sae(f / "sae"))
            return kept.to(self.base.device)
        return load()

    def _fidelity(self, site: Site, sae: Any, models: Sequence[LanguageModel]) -> tuple[ModelFidelity, ...]:
        config, found = self.config, []
        with tqdm(total=3 * len(models), desc=f"SAE at {site}", unit="reading", leave=False) as bar:
            for model in models:
                read = document_activations(model, self.texts.test, site, config.sae.test_tokens).values
                bar.update()
                share = loss_recovered(sae, model, site, self.documents[:32], read.mean(dim=0))
                bar.update()
                where = model.activations(self.texts.test, site, config.shift_positions)
                bar.update()
                ranked = fidelity(sae, where.values[where.positions > 0].to(model.device))
                whole = fidelity(sae, read)
                found.append(ModelFidelity(site, model.name, whole, share, ranked))
                with bar.external_write_mode(sys.stderr):
                    self.here.log(f"SAE at {site} on {model.name}: {whole}, {_recovered(share)}")
        return tuple(found)

    def _shifts(self, stage: str, site: Site, sae: Any, models: Mapping[str, LanguageModel]) -> tuple[LatentShift, ...]:
        where, alike = self.config.shift_positions, [question.id for question in self.discovery]

        def work() -> tuple[LatentShift, ...]:
            # Prompts of one id are forms of one question, and not independent.
            return tuple(
                latent_shift(self.aligned, model, sae, self.prompts, site, where, clusters=alike)
                for model in models.values()
            )

        return self.here.stage(stage, work, tuple[LatentShift, ...])

    def _difference(self, site: Site, narrow: Sequence[str], models: Mapping[str, LanguageModel]) -> Direction:
        tuned = [models[name] for name in narrow]
        return mean_difference(self.aligned, tuned, self.prompts, site, self.config.shift_positions)

    def _rivals(self, site: Site, difference: Direction) -> list[Direction]:
        """The mean difference of the narrow fine-tunes and the random directions, at one site."""
        seed = self.config.seed + 1000 * site.block
        return [difference, *random_directions(self.config.steering.random, self.aligned.d_model, site, seed)]

    def _screen(
        self,
        name: str,
        model: LanguageModel,
        directions: Sequence[Direction],
        toward: Toward,
        tested: LanguageModel | None = None,
    ) -> Screen:
        how, config = self.config.steering, self.config

        def work() -> Screen:
            scales = {site: self.aligned.residual_norm(site, self.prompts) for site in {d.site for d in directions}}
            screen = steer_screen(
                model,
                directions,
                spread(self.discovery, how.questions),
                self.test,
                self.judge,
                toward,
                how.search(config.answers),
                scales,
                self.seed,
                tested,
            )
            self.here.log(str(screen))
            return screen

        return self.here.stage(f"screen/{name}", work, Screen)


def fidelity_of(measured: Sequence[ModelFidelity], site: Site, how: Autoencoder) -> Test:
    """The test that the SAE at `site` describes every model."""
    here = [m for m in measured if m.site == site]
    whole = {m.model: m.fidelity.explained_variance for m in here}
    ranked = {m.model: m.ranked.explained_variance for m in here if m.ranked is not None}
    return fidelity_test(whole, how.least_variance, how.most_drop, ranked, str(site))


def _recovered(share: float) -> str:
    """The share of the loss that is recovered, in words; that it is nan says that nothing was at stake."""
    return f"loss recovered {share:.3f}" if math.isfinite(share) else "no loss at stake (the mean does as well)"


def _latent_name(latent: int, site: Site) -> str:
    return f"latent {latent} ({site})"


def _direction(sae: Any, latent: int, site: Site) -> Direction:
    """The latent's decoder row, named with its site: at two sites the same number means two latents."""
    return dataclasses.replace(decoder_direction(sae, latent, site), origin=_latent_name(latent, site))
