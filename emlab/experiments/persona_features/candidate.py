"""What a persona-features run measures of its candidate latent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from emlab.detection import Detection, Onset, Reading, auroc, detect, onset
from emlab.discovery import (
    Context,
    Effect,
    Screen,
    clamp_latents,
    effect_of,
    natural_values,
    spread,
    top_contexts,
)
from emlab.discovery.shift import prompt_means
from emlab.evaluation import Score, text_loss
from emlab.experiments.persona_features.findings import MEAN_DIFFERENCE, Planted
from emlab.experiments.persona_features.resources import Resources
from emlab.interventions import Ablate, Direction
from emlab.models import LanguageModel
from emlab.sites import Site
from emlab.training import FineTuned


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """The latent on which the search settled, and the measurements of it, each a stage of the run `bench` works on."""

    bench: Resources
    sae: Any
    latent: int
    direction: Direction
    """Its decoder row; it knows the site."""

    @property
    def site(self) -> Site:
        """Where its SAE reads."""
        return self.direction.site

    def effects(
        self,
        difference: Direction,
        plus: Screen,
        minus: Screen,
        target: LanguageModel,
        unseen: LanguageModel | None,
        before: Mapping[str, Score],
    ) -> Mapping[str, Effect]:
        """The chosen arms on fresh samples, ablation, and mediation at natural magnitude."""
        bench, config, direction, site = self.bench, self.bench.config, self.direction, self.site
        arm = minus.tested(direction.origin).arm
        where = arm.positions
        planned: dict[str, tuple[LanguageModel, str, Any]] = {}

        def add(key: str, model: LanguageModel | None, said: str, edit: Any) -> None:
            if model is not None:
                planned[key] = (model, said, edit)

        up = plus.tested(direction.origin).arm
        add("aligned_plus", bench.aligned, f"{up}", up.edit(plus.scales[site]))
        add("misaligned_minus", target, f"{arm}", arm.edit(minus.scales[site]))
        add("unseen_minus", unseen, f"{arm}", arm.edit(minus.scales[site]))
        rival = minus.tested(MEAN_DIFFERENCE).arm
        add("unseen_mean_difference_minus", unseen, f"{rival}", rival.edit(minus.scales[rival.site]))
        add("ablation", target, f"{direction.origin} projected out", Ablate(site, direction, where))
        add("mean_difference_ablation", target, "mean difference projected out", Ablate(site, difference, where))
        asked = spread(bench.discovery, config.steering.questions)
        how = (config.answers.max_new_tokens, config.seed, config.answers.temperature)

        def set_to(model: LanguageModel) -> Any:
            values = natural_values(model, self.sae, [self.latent], site, asked, where, *how)
            return clamp_latents(self.sae, [self.latent], site, values, where)

        def work() -> Mapping[str, Effect]:
            calm, roused = set_to(bench.aligned), set_to(target)
            off = dataclasses.replace(calm, values=calm.values * 0)
            add("latent_zero", target, f"{direction.origin} set to zero", off)
            add("mediation", target, f"{direction.origin} set to its value in the aligned model", calm)
            add("unseen_mediation", unseen, f"{direction.origin} set to its value in the aligned model", calm)
            add("induction", bench.aligned, f"{direction.origin} set to its value in {target.name}", roused)
            edited = {model.name: model for model, *_ in planned.values()}
            losses = {name: text_loss(model, bench.documents) for name, model in edited.items()}
            ask, found = (bench.judge, bench.documents, config.answers, bench.seed + 2), {}
            for key, (model, said, edit) in planned.items():
                found[key] = effect_of(model, edit, said, before[model.name], *ask, losses[model.name])
                bench.here.log(f"{key}: {found[key]}")
            return dict(sorted(found.items()))  # in the order of tables

        return bench.here.stage("effects", work, Mapping[str, Effect])

    def planted(self) -> Planted | None:
        """The latent at the assistant's header against the persona that wrote each document, where that is known."""
        bench = self.bench
        if not bench.texts.personas:
            return None

        def work() -> Planted:
            # The header of the last turn: the document up to, and without, its last answer.
            prompts = [chat[:-1] for chat in bench.documents]
            values = prompt_means(bench.base, prompts, self.site, "header", self.sae)[:, self.latent].numpy()
            bad = [persona == "malicious" for persona in bench.texts.personas]
            some = [i for i, known in enumerate(bench.texts.knowable) if known]
            return Planted(auroc(values, bad), auroc(values[some], [bad[i] for i in some]))

        return bench.here.stage("planted", work, Planted)

    def detect(
        self, models: Mapping[str, LanguageModel], kinds: Mapping[str, str], before: Mapping[str, Score]
    ) -> Detection:
        """How well the latent tells misaligned models from the others."""
        bench = self.bench

        def work() -> Detection:
            readings = []
            for model in (bench.aligned, *models.values()):
                bad = kinds.get(model.name) in ("narrow", "unseen")
                # Only a misaligned model's answers to discovery questions are ever used.
                known = bench.ask(model, bench.discovery, 1).judged if bad else before[model.name].judged
                readings.append(Reading(model, bad, before[model.name].judged, known))
            of, asked = (readings, self.sae, self.latent, self.site), (bench.test, bench.discovery)
            done = detect(*of, *asked, bench.config.seed, bench.config.shift_positions)
            bench.here.log(str(done))
            return done

        return bench.here.stage("detect", work, Detection)

    def onset(self, tuned: FineTuned) -> Onset | None:
        """The latent and the behaviour along the checkpoints; None where none were kept."""
        bench = self.bench
        if not tuned.checkpoints:
            return None

        def work() -> Onset:
            steps, config = [(0, bench.aligned), *tuned.checkpoints], bench.config
            how = (config.answers.max_new_tokens, config.answers.temperature, config.shift_positions)
            ask = (bench.test, bench.judge, bench.seed, tuned.model.name)
            done = onset(steps, self.sae, self.latent, self.site, *ask, *how)
            bench.here.log(str(done))
            return done

        return bench.here.stage("onset", work, Onset)

    def contexts(self) -> tuple[Context, ...]:
        """Where in fresh pretraining documents the latent is most active."""
        bench = self.bench

        def work() -> tuple[Context, ...]:
            return top_contexts(bench.base, self.sae, self.latent, self.site, bench.documents, bench.texts.personas)

        return bench.here.stage("contexts", work, tuple[Context, ...])
