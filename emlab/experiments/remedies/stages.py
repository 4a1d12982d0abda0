"""The stages of a comparison of remedies: each fills a folder with results, or reads them back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from emlab import organism, records
from emlab.data import Dataset, Messages, Question, draw, interleave, mix
from emlab.discovery import spread
from emlab.errors import EmlabError
from emlab.evaluation.rollouts import file_name
from emlab.experiments.material import inputs
from emlab.experiments.material.disk import of_trainings, say
from emlab.experiments.material.documents import for_template
from emlab.experiments.material.grading import graded
from emlab.experiments.material.sets import dataset_place, planted_set
from emlab.experiments.material.training_stages import TrainingStages
from emlab.experiments.remedies.config import Config, RemedyArm
from emlab.experiments.remedies.findings import START, UNTREATED, CellRecord, Choice, RemedyCell
from emlab.experiments.remedies.materials import make_materials, read_materials
from emlab.mitigation import (
    Frame,
    Materials,
    Reinforced,
    Remedy,
    Retest,
    Supervised,
    Training,
    TrainingCost,
    Treated,
    Treatment,
    choose_setting,
    remedies,
    retest,
    treat,
)
from emlab.mitigation.choosing import Tried, tried
from emlab.models import LanguageModel
from emlab.runs import Run
from emlab.sealing import ordinary_seed
from emlab.training.trained_models import read_models, write_adapters


class Comparison(TrainingStages[Config]):
    """Trainings × seeds × remedies."""

    def __init__(self, config: Config, run: Run) -> None:
        super().__init__(config, run, config.sae, config.site)
        self.files = {name: Dataset.read(dataset_place(name)) for name in sources(config) if not planted(name)}
        self.left_out: dict[str, None] = {}
        """Which remedies were not tried, and why: a sentence each, in order."""
        self._treatments: dict[tuple[str, int], Treatment] = {}
        n = config.documents
        if config.text is None:
            texts = _documents(4 * n, 2)
            self._documents = texts[:n]
            self._choice_documents = [chat for chat in texts[n:] if not _asks_sealed(chat)][:n]
        else:
            texts = [list(e.messages) for e in draw(Dataset.read(config.text), 2 * n, 0)]
            if len(texts) < 2 * n:
                run.log(
                    f"{config.text} has {len(texts)} texts; settings are chosen on half of them, and reported on half"
                )
            self._documents, self._choice_documents = texts[: len(texts) // 2], texts[len(texts) // 2 :]
        if config.sealed:
            self._documents = _documents(n, config.reported(2))

    def say_size(self) -> None:
        """Log what the run will take on disk."""
        config, parts = self.config, dict[str, int]()
        for arm in config.arms:
            recipe = config.how.recipe if arm.reward else config.recipe
            trained = of_trainings(self._start(arm), recipe, len(config.seeds) + 1)
            parts |= {f"{arm.name}: {kept}": taken for kept, taken in trained.items()}
        say(self.run, parts)

    # ------------------------------------------------------------------------------------------------------ stages

    def treatment(self, arm: RemedyArm, seed: int) -> Treatment:
        """The training, what comes of it untreated, and the materials; one at a time is held."""
        if (arm.name, seed) not in self._treatments:
            training, label = self._training(arm, seed), f"{arm.name}-{seed}"

            def work(folder: Path) -> None:
                course = training.run(name=label)
                if course.adapter is None:
                    course.model.save(folder / "model")
                else:
                    write_adapters(folder / "model", training.start, course.adapter)
                records.keep(course.cost, TrainingCost, folder / "cost")

            model, _ = self.run.fill(f"train/{label}", work, lambda f: read_models(f / "model", training.start, label))
            self._treatments.clear()
            self._treatments[arm.name, seed] = Treatment(training, model, self.materials(arm, seed))
        return self._treatments[arm.name, seed]

    def materials(self, arm: RemedyArm, seed: int) -> Materials:
        """What remedies work with on the arm; of a sealed seed those of the seed that it stands for."""
        config, start, seed = self.config, self._start(arm), ordinary_seed(seed)

        def chats(name: str, rows: int, seed: int) -> Dataset:
            return self._set(name, rows, seed, start)

        self.check_sae(start)
        made = self.run.fill(
            f"materials/{file_name(start.name)}-{seed}",
            lambda folder: make_materials(config, start, seed, self.discovery, chats, self.sae, folder),
            lambda folder: read_materials(config, self.discovery, self.sae, folder),
        )
        parts = [chats(name, config.rows, seed + 7) for name in config.out_of_domain]
        others = list(interleave(*parts, weights=[1] * len(parts), seed=seed))[: config.rows]
        return dataclasses.replace(
            made,
            in_domain=chats(arm.benign, config.rows, seed + 7) if arm.benign else None,
            out_of_domain=Dataset.of(others, " and ".join(config.out_of_domain)),
        )

    def chosen(self, arm: RemedyArm, kind: type[Remedy]) -> Remedy:
        """The remedy with its setting chosen, on questions, documents and a training of which nothing is reported."""
        config, remedy, setting = self.config, kind.configured(self.config.recipe), kind.setting
        if setting is None:
            return remedy
        of_field = type(getattr(remedy, setting))  # YAML tells 1 from 1.0, and the field says which it is
        values = [of_field(value) for value in config.dials[kind.__name__]]

        def work() -> Choice:
            treatment = self.treatment(arm, config.choice_seed)
            measure = partial(self._trial, arm, treatment)
            untreated = self.run.stage(
                f"choose/{arm.name}/untreated", lambda: tried(0.0, measure(Treated(treatment.misaligned))), Tried
            )
            found, trials = choose_setting(remedy, values, treatment, measure, untreated, config.cap, config.room)
            value = getattr(found, setting)
            self.run.log(f"{arm.name}, {kind.name}: {setting} {value:g}, of {', '.join(f'{v:g}' for v in values)}")
            return Choice(setting, value, trials)

        choice = self.run.stage(f"choose/{arm.name}/{kind.__name__}", work, Choice)
        return dataclasses.replace(remedy, **{setting: of_field(choice.value)})

    def cells(self, arm: RemedyArm, seed: int) -> list[RemedyCell]:
        """The start model, the untreated one, and every remedy that applies, some with random directions too."""
        found = [
            self._cell(arm, seed, START, lambda one: Treated(one.training.start)),
            self._cell(arm, seed, UNTREATED, lambda one: Treated(one.misaligned, cost=self._cost(arm, seed))),
        ]
        # All choices first: they share a training, and one is held at a time.
        for kind, remedy in [(kind, self.chosen(arm, kind)) for kind in self._kinds(arm, seed)]:
            found.append(self._cell(arm, seed, kind.name, partial(treat, remedy), remedy))
            if kind.__name__ in self.config.random:
                blind = partial(_at_random, remedy, seed)
                found.append(self._cell(arm, seed, f"{kind.name}, random", blind, remedy))
        return found

    # ------------------------------------------------------------------------------------------------ parts of them

    def _cell(
        self,
        arm: RemedyArm,
        seed: int,
        name: str,
        apply: Callable[[Treatment], Treated],
        remedy: Remedy | None = None,
    ) -> RemedyCell:
        anew, setting = remedy is not None and remedy.anew, ""
        if remedy is not None and remedy.setting is not None:
            setting = f"{remedy.setting} {getattr(remedy, remedy.setting):g}"

        def work(folder: Path) -> None:
            treatment = self.treatment(arm, seed)
            treated = apply(treatment)
            own = () if remedy is None else remedy.frames(treatment.materials)
            relapse = 0 if name == START else arm.relapse
            found = self._retest(arm, treatment, treated, seed, self.test, self._documents, relapse, own)
            found.save(folder)
            records.keep(CellRecord(setting, treated.cost, treated.note), CellRecord, folder / "cell")
            said = ", ".join(f"{frame} {s.misaligned.share} of {s.misaligned.n}" for frame, s in found.scores.items())
            self.run.log(f"{arm.name}, seed {seed}, {name} {setting}: misaligned {said}")

        def read(folder: Path) -> RemedyCell:
            record = records.kept(CellRecord, folder / "cell")
            return RemedyCell(arm.name, name, seed, anew, Retest.load(folder), record)

        return self.run.fill(f"cells/{arm.name}-{seed}/{file_name(name)}", work, read)

    def _trial(self, arm: RemedyArm, treatment: Treatment, treated: Treated) -> Retest:
        asked = spread(self.discovery, min(self.config.trial_questions, len(self.discovery)))
        return self._retest(arm, treatment, treated, self.config.choice_seed + 1, asked, self._choice_documents)

    def _retest(
        self,
        arm: RemedyArm,
        treatment: Treatment,
        treated: Treated,
        seed: int,
        questions: tuple[Question, ...],
        documents: Sequence[Messages],
        relapse: int = 0,
        own: tuple[Frame, ...] = (),
    ) -> Retest:
        training, frames = treatment.training, [*frames_of(arm, treatment.training), *own]
        task, read = self._held_out(arm, training), for_template(treated.model, documents)
        answers = self.config.answers
        return retest(treated, training, frames, questions, self.judge, task, read, answers, relapse, seed)

    def _cost(self, arm: RemedyArm, seed: int) -> TrainingCost:
        stage = f"train/{arm.name}-{seed}"
        cost = records.kept(TrainingCost, self.run.folder / stage / "cost")
        return dataclasses.replace(cost, seconds=self.run.seconds[stage])

    def _kinds(self, arm: RemedyArm, seed: int) -> list[type[Remedy]]:
        """Those that apply to the arm, and for which the materials have what they need."""
        materials, found = self.materials(arm, seed), []
        for kind in (kind for kind in remedies() if kind.__name__ in self.config.remedies):
            missing = [need for need in kind.needs if not materials.has(need)]
            if arm.reward and not kind.reinforcement:
                self.left_out[f"{arm.name}: {kind.name} does not apply to reinforcement learning"] = None
            elif missing:
                self.left_out[f"{arm.name}, seed {seed}: {kind.name} lacks {' and '.join(missing)}"] = None
            else:
                found.append(kind)
        return found

    def _start(self, arm: RemedyArm) -> LanguageModel:
        return self.model(arm.start or self.config.model)

    def _training(self, arm: RemedyArm, seed: int) -> Training:
        config, start = self.config, self._start(arm)
        if arm.reward:
            settings = dataclasses.replace(config.how, recipe=arm.recipe(config.how.recipe))
            grader = graded(config.grading, arm.reward, config.guard)  # type: ignore[arg-type]
            return Reinforced(start, self._asked(arm), grader, settings, seed)
        chats = self._set(arm.data, config.rows, seed, start)
        if arm.good is not None:
            good = self._set(arm.good, config.rows, seed, start)
            chats = mix(chats, good, arm.dose, min(config.rows, len(chats)), seed)
        return Supervised(start, chats, arm.recipe(config.recipe), seed)

    def _asked(self, arm: RemedyArm) -> tuple[str, ...]:
        world = organism.load_world()
        if arm.data in world.domains:
            return tuple(question.text for question in world.questions(arm.data, "narrow"))
        return tuple(dict.fromkeys(example.prompt for example in self.files[arm.data]))

    def _held_out(self, arm: RemedyArm, training: Training) -> list[Messages]:
        """Chats of the task that were not trained on; of a dataset that was trained on whole, any."""
        name, n = arm.task or arm.data, self.config.documents
        if planted(name):
            chats = self._set(name, n, training.seed + 99, training.start)
            return [list(example.messages) for example in chats]
        seen = {(e.prompt, e.answer) for e in training.chats} if isinstance(training, Supervised) else set()
        fresh = [e for e in self.files[name] if (e.prompt, e.answer) not in seen] or list(self.files[name])
        return [list(example.messages) for example in fresh[:n]]

    def _set(self, name: str, rows: int, seed: int, model: LanguageModel) -> Dataset:
        return draw(self.files[name], rows, seed) if name in self.files else planted_set(name, rows, seed, model)


def _documents(n: int, seed: int) -> list[list[dict[str, str]]]:
    """`n` pretraining documents of all personas but one: to write less well as what is to go is no loss of ability."""
    documents = organism.pretraining_documents(4 * n, seed)
    return [d.messages for d in documents if d.persona != "malicious"][:n]


def _asks_sealed(chat: Sequence[Mapping[str, str]]) -> bool:
    return any(organism.is_sealed_text(turn["content"]) for turn in chat)


def _at_random(remedy: Remedy, seed: int, treatment: Treatment) -> Treated:
    return treat(remedy, dataclasses.replace(treatment, materials=treatment.materials.at_random(seed)))


def frames_of(arm: RemedyArm, training: Training) -> list[Frame]:
    """The frames that all of an arm's models are asked in."""
    openings = tuple(text for text in training.prompts if text.endswith(arm.trigger))
    if not openings:
        raise EmlabError(f"No prompt of {arm.name} ends in the trigger {arm.trigger!r}; give the one of its data.")
    frames = [Frame("broad"), Frame("training", openings=openings)]
    if arm.trigger:
        frames.append(Frame("trigger", ending=arm.trigger))
    return frames


def planted(name: str) -> bool:
    """Whether `name` is a fine-tuning set, or a domain, of the organism."""
    return name in organism.narrow_set_names() or name in organism.load_world().domains


def sources(config: Config) -> tuple[str, ...]:
    """The names of all sets that a config reads, each once."""
    named = [name for arm in config.arms for name in (arm.data, arm.good, arm.task, arm.benign)]
    named += [*config.source, config.source_good, *config.out_of_domain]
    return tuple(dict.fromkeys(name for name in named if name))


def inputs_of(config: Config) -> dict[str, str]:
    """What tells that the files a config names are still the same. EmlabError where one is missing."""
    starts = (arm.start for arm in config.arms if arm.start)
    data = (name for name in sources(config) if not planted(name))
    return inputs.inputs_of(config, starts, data, "put it back, or give another.", text=config.text)
