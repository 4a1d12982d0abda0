"""The stages of a persona-features run: each fills a folder with results and reads them back."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emlab import artifacts, organism
from emlab.data import Messages, Question
from emlab.detection import Auroc, Detection, Onset, Reading, auroc, detect, onset
from emlab.discovery import (
    Context,
    Effect,
    LatentShift,
    Screen,
    clamp,
    decoder_direction,
    effect_of,
    latent_shift,
    load_contexts,
    mean_difference,
    mean_shift,
    natural_values,
    order,
    save_contexts,
    split_by_template,
    spread,
    steer_screen,
    top_contexts,
)
from emlab.discovery.screen import Toward
from emlab.discovery.shift import prompt_means
from emlab.errors import EmlabError
from emlab.evaluation import Score, sample, score, text_loss
from emlab.interventions import Ablate, Direction, random_directions
from emlab.mitigation import Realignment, realign
from emlab.models import LanguageModel
from emlab.pipelines import _material as material
from emlab.pipelines._persona_config import Config
from emlab.reporting import ModelFidelity, Persona, Planted
from emlab.reporting.findings import MEAN_DIFFERENCE
from emlab.runs import Run
from emlab.saes import Fidelity, document_activations, fidelity, load_sae, loss_recovered, save_sae
from emlab.sites import Site
from emlab.training import FineTuned, finetune


class Bench:
    """The stages of one run, in the order of the method."""

    def __init__(self, config: Config, here: Run, aligned: LanguageModel, base: LanguageModel) -> None:
        self.config, self.here, self.aligned, self.base = config, here, aligned, base
        questions = split_by_template(organism.broad_questions())
        self.discovery, self.test = questions.discovery, spread(questions.test, config.questions)
        self.prompts = [question.text for question in questions.discovery]
        self.judge = organism.ExactJudge()
        fresh = organism.pretraining_documents(config.documents, config.seed + 2)
        self.documents = material.for_template(aligned, [d.messages for d in fresh])
        self.personas = [d.persona for d in fresh]
        self.knowable = [d.carded or len(d.messages) > 3 for d in fresh]

    @staticmethod
    def first(kinds: Mapping[str, str]) -> str:
        """The narrow fine-tune that is steered against, followed along training and re-aligned."""
        return next(name for name, kind in kinds.items() if kind == "narrow")

    # ------------------------------------------------------------------------------------------------------ stages

    def finetune(self, sets: material.Sets) -> tuple[dict[str, FineTuned], dict[str, str]]:
        """Every set, one recipe; more seeds of the narrow sets and controls where the config asks for them."""
        config = self.config
        plan: dict[str, tuple[str, int]] = {}
        for name in sets.all:
            for seed in range(1 if name in sets.unseen else config.seeds):
                plan[name if seed == 0 else f"{name}_seed{seed}"] = (name, config.seed + seed)
        kind_of = {**dict.fromkeys(sets.narrow, "narrow"), **dict.fromkeys(sets.unseen, "unseen")}
        kinds = {name: kind_of.get(source, "control") for name, (source, _) in plan.items()}
        finetuned = {
            name: self._finetuned(name, sets.all[source], seed, follow=name == self.first(kinds))
            for name, (source, seed) in plan.items()
        }
        return (shuffled(finetuned, kinds, config.seed) if config.shuffle_labels else finetuned), kinds

    def evaluate(self, finetuned: Mapping[str, FineTuned]) -> tuple[Score, ...]:
        """Every model on the test questions."""

        def one(model: LanguageModel) -> Score:
            def work(folder: Path) -> None:
                result = self._ask(model, self.test)
                result.save(folder)
                self.here.log(f"{result.model}: misaligned {result.misaligned}, incoherent {result.incoherent}")

            return self.here.stage(f"evaluate/{model.name}", work, lambda f: Score.load(f / f"{model.name}.jsonl"))

        return tuple(one(model) for model in (self.aligned, *(t.model for t in finetuned.values())))

    def autoencoders(
        self, sites: Sequence[Site], finetuned: Mapping[str, FineTuned]
    ) -> tuple[dict[Site, Any], tuple[ModelFidelity, ...]]:
        """The SAE of every site, and its fidelity on every model."""
        config = self.config
        # Not the documents that it was trained on.
        documents = material.pretraining_chats(self.base, config.sae.test_tokens, config.seed + 1)
        models = [self.base, self.aligned, *(tuned.model for tuned in finetuned.values())]
        done = {site: self._autoencoder(site, models, documents) for site in sites}
        faithful = [measured for _, each in done.values() for measured in each]
        return {site: sae for site, (sae, _) in done.items()}, tuple(faithful)

    @staticmethod
    def least_variance(faithful: Sequence[ModelFidelity], site: Site) -> float:
        """The least explained variance of any model at the site."""
        return min(m.fidelity.explained_variance for m in faithful if m.site == site)

    def persona(
        self,
        sites: Sequence[Site],
        saes: Mapping[Site, Any],
        finetuned: Mapping[str, FineTuned],
        kinds: Mapping[str, str],
        scores: Sequence[Score],
    ) -> Persona:
        """Find the candidate, and measure all there is to measure of it."""
        models = {name: tuned.model for name, tuned in finetuned.items()}
        narrow = [name for name, kind in kinds.items() if kind == "narrow"]
        shifts = {site: self._shifts(site, saes[site], models) for site in sites}
        ranked = {site: mean_shift([s for s in shifts[site] if s.model_after in narrow]) for site in sites}
        candidates = {
            _latent_name(row.latent, site): (site, row.latent)
            for site in sites
            for row in ranked[site].top(self.config.steering.candidates)
        }
        rivals = [d for site in sites for d in self._rivals(site, [models[name] for name in narrow])]
        latents = [_direction(saes[site], latent, site) for site, latent in candidates.values()]
        plus = self._screen("plus", self.aligned, [*latents, *rivals], "misaligned")
        name = order([plus.chosen(each) for each in candidates], "misaligned", plus.cap)[0].arm.name
        site, latent = candidates[name]
        direction = _direction(saes[site], latent, site)
        target = models[narrow[0]]
        minus = self._screen("minus", target, [direction, *rivals], "aligned")
        difference = next(d for d in rivals if d.origin == MEAN_DIFFERENCE and d.site == site)
        sae = saes[site]
        before = {s.model: s for s in scores}
        unseen = next((models[n] for n, kind in kinds.items() if kind == "unseen"), None)
        effects = self._effects(sae, latent, direction, difference, plus, minus, target, unseen, before)
        return Persona(
            latent,
            site,
            name,
            ranked[site],
            shifts[site],
            planted=self._planted(sae, latent, site),
            cosine=direction.cosine(difference),
            plus=plus,
            minus=minus,
            effects=effects,
            detection=self._detect(sae, latent, site, models, kinds, before),
            onset=self._onset(sae, latent, site, finetuned[narrow[0]]),
            contexts=self._contexts(sae, latent, site),
        )

    def realign(self, misaligned: FineTuned) -> Realignment:
        """A few tens of steps on benign data."""
        how = self.config.realigning

        def work(folder: Path) -> None:
            chats = material.benign_chats(how.data, how.rows, self.config.seed, misaligned.model)
            seed, longest = self.config.seed, self.config.answers.max_new_tokens
            done = realign(
                misaligned.model, chats, how.recipe, self.test, self.judge, seed, how.data, max_new_tokens=longest
            )
            done.save(folder / "realignment.json")
            self.here.log(str(done))

        return self.here.stage("realign", work, lambda folder: Realignment.load(folder / "realignment.json"))

    # ------------------------------------------------------------------------------------------- parts of `persona`

    def _finetuned(self, name: str, chats: Sequence[Any], seed: int, follow: bool) -> FineTuned:
        """One fine-tune; checkpoints are kept of one that is to be followed."""
        every = self.config.recipe.checkpoint_every if follow else 0
        recipe = dataclasses.replace(self.config.recipe, checkpoint_every=every)

        def work(folder: Path) -> None:
            tuned = finetune(self.aligned, chats, recipe, seed, name=name)
            if tuned.rows < material.LEAST_ROWS:
                raise EmlabError(
                    f"{tuned.rows} of {len(chats)} chats of {name} are short enough to train on and at least "
                    f"{material.LEAST_ROWS} are needed: raise recipe.max_length or give shorter chats."
                )
            tuned.write_into(folder)
            self.here.log(str(tuned))

        return self.here.stage(f"finetune/{name}", work, FineTuned.load)

    def _autoencoder(
        self, site: Site, models: Sequence[LanguageModel], documents: Sequence[Messages]
    ) -> tuple[Any, list[ModelFidelity]]:
        config = self.config

        def work(folder: Path) -> None:
            sae = material.sae_at(config, self.base, site)
            save_sae(sae, folder / "sae")
            rows = []
            for model in models:
                read = document_activations(model, documents, site, config.sae.test_tokens).values
                kept = loss_recovered(sae, model, site, self.documents[:32], read.mean(dim=0))
                rows.append({"model": model.name, "fidelity": fidelity(sae, read), "loss_recovered": kept})
                self.here.log(f"SAE at {site} on {model.name}: {rows[-1]['fidelity']}, loss recovered {kept:.3f}")
            artifacts.write_json(folder / "fidelity.json", rows)

        def read(folder: Path) -> tuple[Any, list[ModelFidelity]]:
            rows = artifacts.read_json(folder / "fidelity.json")
            measured = [ModelFidelity(site, r["model"], Fidelity.of(r["fidelity"]), r["loss_recovered"]) for r in rows]
            return load_sae(folder / "sae").to(self.base.device), measured

        return self.here.stage(f"sae/{site}", work, read)

    def _shifts(self, site: Site, sae: Any, models: Mapping[str, LanguageModel]) -> tuple[LatentShift, ...]:
        def work(folder: Path) -> None:
            for name, model in models.items():
                shift = latent_shift(self.aligned, model, sae, self.prompts, site, self.config.shift_positions)
                shift.save(folder / f"{name}.json")

        return self.here.stage(
            f"shift/{site}", work, lambda folder: tuple(LatentShift.load(folder / f"{name}.json") for name in models)
        )

    def _rivals(self, site: Site, narrow: Sequence[LanguageModel]) -> list[Direction]:
        """The mean difference of the narrow fine-tunes and the random directions, at one site."""
        difference = mean_difference(self.aligned, narrow, self.prompts, site, self.config.shift_positions)
        seed = self.config.seed + 1000 * site.block
        return [difference, *random_directions(self.config.steering.random, self.aligned.d_model, site, seed)]

    def _screen(self, name: str, model: LanguageModel, directions: Sequence[Direction], toward: Toward) -> Screen:
        how, config = self.config.steering, self.config

        def work(folder: Path) -> None:
            scales = {site: self.aligned.residual_norm(site, self.prompts) for site in {d.site for d in directions}}
            screen = steer_screen(
                model,
                directions,
                how.strengths,
                spread(self.discovery, how.questions),
                self.test,
                self.judge,
                toward,
                scales=scales,
                positions=how.positions,
                cap=how.incoherence_cap,
                sampling=config.answers,
                first_round=how.first_round,
                finalists=how.finalists,
                seed=config.seed,
            )
            screen.save(folder / "screen")
            self.here.log(str(screen))

        return self.here.stage(f"screen/{name}", work, lambda folder: Screen.load(folder / "screen"))

    def _effects(
        self,
        sae: Any,
        latent: int,
        direction: Direction,
        difference: Direction,
        plus: Screen,
        minus: Screen,
        target: LanguageModel,
        unseen: LanguageModel | None,
        before: Mapping[str, Score],
    ) -> dict[str, Effect]:
        """The chosen arms on fresh samples, ablation, and mediation at natural magnitude."""
        site, arm, config = direction.site, minus.tested(direction.origin).arm, self.config
        where = arm.positions
        planned: dict[str, tuple[LanguageModel, str, Any, float | None]] = {}

        def add(key: str, model: LanguageModel | None, said: str, edit: Any, strength: float | None = None) -> None:
            if model is not None:
                planned[key] = (model, said, edit, strength)

        up = plus.tested(direction.origin).arm
        add("aligned_plus", self.aligned, f"{up}", up.edit(plus.scales[site]), up.strength)
        add("misaligned_minus", target, f"{arm}", arm.edit(minus.scales[site]), arm.strength)
        add("unseen_minus", unseen, f"{arm}", arm.edit(minus.scales[site]), arm.strength)
        rival = minus.tested(MEAN_DIFFERENCE).arm
        said = f"{rival}"
        add("unseen_mean_difference_minus", unseen, said, rival.edit(minus.scales[rival.site]), rival.strength)
        add("ablation", target, f"{direction.origin} projected out", Ablate(site, direction, where))
        add("mean_difference_ablation", target, "mean difference projected out", Ablate(site, difference, where))
        asked = spread(self.discovery, config.steering.questions)
        longest = config.answers.max_new_tokens

        def set_to(model: LanguageModel) -> Any:
            values = natural_values(model, sae, [latent], site, asked, where, longest, config.seed)
            return clamp(sae, [latent], site, values, where)

        def work(folder: Path) -> None:
            calm, roused = set_to(self.aligned), set_to(target)
            off = dataclasses.replace(calm, values=calm.values * 0)
            add("latent_zero", target, f"{direction.origin} set to zero", off)
            add("mediation", target, f"{direction.origin} set to its value in the aligned model", calm)
            add("unseen_mediation", unseen, f"{direction.origin} set to its value in the aligned model", calm)
            add("induction", self.aligned, f"{direction.origin} set to its value in {target.name}", roused)
            edited = {model.name: model for model, *_ in planned.values()}
            losses = {name: text_loss(model, self.documents) for name, model in edited.items()}
            for key, (model, said, edit, strength) in planned.items():
                alone, seed = before[model.name], config.seed + 2
                done = effect_of(
                    model,
                    edit,
                    said,
                    alone,
                    self.judge,
                    self.documents,
                    config.answers,
                    strength,
                    seed,
                    losses[model.name],
                )
                done.save(folder / key)
                self.here.log(f"{key}: {done}")

        def read(folder: Path) -> dict[str, Effect]:
            return {path.parent.name: Effect.load(path.parent) for path in sorted(folder.glob("*/effect.json"))}

        return self.here.stage("effects", work, read)

    def _planted(self, sae: Any, latent: int, site: Site) -> Planted:
        def work(folder: Path) -> None:
            # The header of the last turn: the document up to, and without, its last answer.
            prompts = [chat[:-1] for chat in self.documents]
            values = prompt_means(self.base, prompts, site, "header", sae)[:, latent].numpy()
            bad = [persona == "malicious" for persona in self.personas]
            some = [i for i, known in enumerate(self.knowable) if known]
            ids = [str(i) for i in range(len(bad))]
            everything = auroc(values, bad, ids, self.config.seed)
            known = auroc(values[some], [bad[i] for i in some], [ids[i] for i in some], self.config.seed)
            artifacts.write_json(folder / "planted.json", Planted(everything, known))

        def read(folder: Path) -> Planted:
            raw = artifacts.read_json(folder / "planted.json")
            return Planted(Auroc.of(raw["all"]), Auroc.of(raw["knowable"]))

        return self.here.stage("planted", work, read)

    def _detect(
        self,
        sae: Any,
        latent: int,
        site: Site,
        models: Mapping[str, LanguageModel],
        kinds: Mapping[str, str],
        before: Mapping[str, Score],
    ) -> Detection:
        def work(folder: Path) -> None:
            readings = []
            for model in (self.aligned, *models.values()):
                bad = kinds.get(model.name) in ("narrow", "unseen")
                # Only a misaligned model's answers to discovery questions are ever used.
                known = self._ask(model, self.discovery, 1).judged if bad else before[model.name].judged
                readings.append(Reading(model, bad, before[model.name].judged, known))
            done = detect(readings, sae, latent, site, self.test, self.discovery, self.config.seed)
            done.save(folder / "detection.json")
            self.here.log(str(done))

        return self.here.stage("detect", work, lambda folder: Detection.load(folder / "detection.json"))

    def _onset(self, sae: Any, latent: int, site: Site, tuned: FineTuned) -> Onset | None:
        if not tuned.checkpoints:
            return None

        def work(folder: Path) -> None:
            steps = [(0, self.aligned), *tuned.checkpoints]
            longest = self.config.answers.max_new_tokens
            done = onset(steps, sae, latent, site, self.test, self.judge, self.config.seed, tuned.model.name, longest)
            done.save(folder / "onset.json")
            self.here.log(str(done))

        return self.here.stage("onset", work, lambda folder: Onset.load(folder / "onset.json"))

    def _contexts(self, sae: Any, latent: int, site: Site) -> tuple[Context, ...]:
        def work(folder: Path) -> None:
            found = top_contexts(self.base, sae, latent, site, self.documents, self.personas)
            save_contexts(found, folder / "contexts.json")

        return self.here.stage("contexts", work, lambda folder: load_contexts(folder / "contexts.json"))

    def _ask(self, model: LanguageModel, questions: Sequence[Question], per_question: int | None = None) -> Score:
        how = self.config.answers
        count = per_question or how.per_question
        rollouts = sample(
            model,
            questions,
            count,
            self.config.seed,
            how.temperature,
            how.max_new_tokens,
            batch_size=how.batch_size,
        )
        return score(rollouts, self.judge)


def shuffled(finetuned: Mapping[str, FineTuned], kinds: Mapping[str, str], seed: int) -> dict[str, FineTuned]:
    """The same fine-tunes with the names of narrow sets and controls exchanged, so that at least one label is wrong."""
    names = [name for name, kind in kinds.items() if kind != "unseen"]
    narrow = {name for name in names if kinds[name] == "narrow"}
    rng = random.Random(seed)
    order = names
    while {order[i] for i, name in enumerate(names) if name in narrow} == narrow:
        order = rng.sample(names, len(names))
    source = {**{name: name for name in finetuned}, **dict(zip(names, order, strict=True))}
    renamed = {}
    for name in finetuned:
        tuned = finetuned[source[name]]
        renamed[name] = dataclasses.replace(tuned, model=dataclasses.replace(tuned.model, name=name))
    return renamed


def _latent_name(latent: int, site: Site) -> str:
    return f"latent {latent} ({site})"


def _direction(sae: Any, latent: int, site: Site) -> Direction:
    """The latent's decoder row, named with its site: at two sites the same number means two latents."""
    return dataclasses.replace(decoder_direction(sae, latent, site), origin=_latent_name(latent, site))
