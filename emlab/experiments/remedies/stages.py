"""The stages of a comparison of remedies: each fills a folder with results and reads them back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from emlab import artifacts, organism
from emlab.data import Dataset, Messages, Question, draw, interleave, mix
from emlab.discovery import spread
from emlab.errors import EmlabError
from emlab.evaluation.rollouts import file_name
from emlab.experiments.material.disk import of_trainings, say
from emlab.experiments.material.documents import for_template
from emlab.experiments.material.fidelity import ask_fidelity
from emlab.experiments.material.grading import graded
from emlab.experiments.material.judging import judge_for
from emlab.experiments.material.models import folder_of
from emlab.experiments.material.questions import halves_of
from emlab.experiments.material.saes import named_sae
from emlab.experiments.material.sets import planted_set
from emlab.experiments.remedies.config import Config, RemedyArm
from emlab.experiments.remedies.materials import make_materials, read_materials
from emlab.experiments.remedies.report import RemedyCell
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
from emlab.runs import Run, fingerprint
from emlab.sites import Site
from emlab.training.trained_models import read_models, write_adapters

START, UNTREATED = "start", "untreated"
"""The rows beside the remedies: the model before the bad training, and after it."""


class Comparison:
    """What all stages of a run share: models, questions, judge, SAE."""

    def __init__(self, config: Config, here: Run) -> None:
        self.config, self.here = config, here
        questions, whole = halves_of(config.question_set, 0)
        self.discovery, self.test = questions.discovery, spread(questions.test, config.questions)
        self.judge = judge_for(here.caution, config.judging, whole, config.model)
        self.files = {name: Dataset.read(name) for name in sources(config) if not planted(name)}
        self.sae = named_sae(config.sae, config.model, Site.parse(config.site))
        self.left_out: dict[str, None] = {}
        """Which remedies were not tried, and why: a sentence each, in order."""
        self._models: dict[str, LanguageModel] = {}
        self._cases: dict[tuple[str, int], Treatment] = {}
        if config.text is None:
            # To write less well as the persona that is to go is no loss of ability.
            documents = organism.pretraining_documents(4 * config.documents, 2)
            self._documents = [d.messages for d in documents if d.persona != "malicious"][: config.documents]
        else:
            self._documents = [list(e.messages) for e in draw(Dataset.read(config.text), config.documents, 0)]

    def say_size(self) -> None:
        """Log what the run will take on disk."""
        config, parts = self.config, dict[str, int]()
        for arm in config.arms:
            recipe = config.how.recipe if arm.reward else config.recipe
            trained = of_trainings(self._start(arm), recipe, len(config.seeds))
            parts |= {f"{arm.name}: {kept}": taken for kept, taken in trained.items()}
        say(self.here, parts)

    # ------------------------------------------------------------------------------------------------------ stages

    def case(self, arm: RemedyArm, seed: int) -> Treatment:
        """The training, what comes of it untreated, and the materials."""
        if (arm.name, seed) not in self._cases:
            training, label = self._training(arm, seed), f"{arm.name}-{seed}"

            def work(folder: Path) -> None:
                course = training.run(name=label)
                if course.adapter is None:
                    course.model.save(folder / "model")
                else:
                    write_adapters(folder / "model", training.start, course.adapter)
                artifacts.write_json(folder / "cost.json", course.cost)

            model, _ = self.here.fill(f"train/{label}", work, lambda f: read_models(f / "model", training.start, label))
            self._cases.clear()  # one at a time in memory
            self._cases[arm.name, seed] = Treatment(training, model, self._materials(arm, seed))
        return self._cases[arm.name, seed]

    def chosen(self, arm: RemedyArm, kind: Any) -> Any:
        """The remedy with its setting chosen, on discovery questions and with the first seed."""
        remedy, seed = kind.configured(self.config.recipe), self.config.seeds[0]
        if kind.setting is None:
            return remedy
        values = [type(getattr(remedy, kind.setting))(value) for value in self.config.dials.get(kind.__name__, ())]

        def work(folder: Path) -> None:
            config, case = self.config, self.case(arm, seed)

            def measure(treated: Treated) -> Retest:
                asked = spread(self.discovery, min(config.trial_questions, len(self.discovery)))
                return self._retest(treated, case, arm, seed + 1, asked)

            found, trials = choose_setting(
                remedy, values, case, measure, self._untreated_trial(arm, seed), config.cap, config.room
            )
            value = getattr(found, kind.setting)
            artifacts.write_json(folder / "choice.json", {"setting": kind.setting, "value": value, "trials": trials})
            self.here.log(
                f"{arm.name}, {kind.name}: {kind.setting} {value:g}, of {', '.join(f'{v:g}' for v in values)}"
            )

        stage = f"choose/{arm.name}/{kind.__name__}"
        value = self.here.fill(stage, work, lambda f: artifacts.read_json(f / "choice.json")["value"])
        return dataclasses.replace(remedy, **{kind.setting: type(getattr(remedy, kind.setting))(value)})

    def beside(self, arm: RemedyArm, seed: int) -> list[RemedyCell]:
        """The model at the start, and what comes of the training untreated."""
        return [
            self._cell(arm, seed, START, lambda case: Treated(case.training.start), relapse=False),
            self._cell(arm, seed, UNTREATED, lambda case: Treated(case.misaligned, cost=self._cost(arm, seed))),
        ]

    def cells(self, arm: RemedyArm, seed: int) -> list[RemedyCell]:
        """Every remedy that applies, chosen and retested; and those with random directions."""
        found = []
        for kind in self._kinds(arm, seed):
            remedy = self.chosen(arm, kind)
            setting = "" if kind.setting is None else f"{kind.setting} {getattr(remedy, kind.setting):g}"

            def apply(case: Treatment, remedy: Any = remedy) -> Treated:
                return treat(remedy, case)

            found.append(self._cell(arm, seed, kind.name, apply, setting, remedy=remedy))
            if kind.__name__ in self.config.random:

                def blind(case: Treatment, remedy: Any = remedy) -> Treated:
                    return treat(remedy, dataclasses.replace(case, materials=case.materials.at_random(seed)))

                found.append(self._cell(arm, seed, f"{kind.name}, random", blind, setting, remedy=remedy))
        return found

    # ------------------------------------------------------------------------------------------------ parts of them

    def _cell(
        self,
        arm: RemedyArm,
        seed: int,
        name: str,
        apply: Any,
        setting: str = "",
        relapse: bool = True,
        remedy: Remedy | None = None,
    ) -> RemedyCell:
        def work(folder: Path) -> None:
            case = self.case(arm, seed)
            treated = apply(case)
            steps = arm.relapse if relapse else 0
            own = () if remedy is None else remedy.frames(case.materials)
            found = self._retest(treated, case, arm, seed, self.test, steps, own)
            found.save(folder)
            about = {"cost": treated.cost, "note": treated.note, "setting": setting}
            artifacts.write_json(folder / "cell.json", about)
            said = ", ".join(f"{frame} {s.misaligned.share} of {s.misaligned.n}" for frame, s in found.scores.items())
            self.here.log(f"{arm.name}, seed {seed}, {name} {setting}: misaligned {said}")

        def read(folder: Path) -> RemedyCell:
            raw = artifacts.read_json(folder / "cell.json")
            return RemedyCell(
                arm.name,
                name,
                seed,
                raw["setting"],
                remedy is not None and remedy.anew,
                Retest.load(folder),
                TrainingCost(**raw["cost"]),
                raw["note"],
            )

        return self.here.fill(f"cells/{arm.name}-{seed}/{file_name(name)}", work, read)

    def _retest(
        self,
        treated: Treated,
        case: Treatment,
        arm: RemedyArm,
        seed: int,
        questions: tuple[Question, ...],
        relapse: int = 0,
        own: tuple[Frame, ...] = (),
    ) -> Retest:
        config = self.config
        return retest(
            treated,
            case.training,
            [*frames_of(arm, case.training), *own],
            questions,
            self.judge,
            self._held_out(arm, case),
            for_template(treated.model, self._documents),
            config.answers,
            relapse,
            seed,
        )

    def _untreated_trial(self, arm: RemedyArm, seed: int) -> Tried:
        def work(folder: Path) -> None:
            case = self.case(arm, seed)
            asked = spread(self.discovery, min(self.config.trial_questions, len(self.discovery)))
            found = self._retest(Treated(case.misaligned), case, arm, seed + 1, asked)
            artifacts.write_json(folder / "trial.json", tried(0.0, found))

        return self.here.fill(
            f"choose/{arm.name}/untreated", work, lambda f: Tried(**artifacts.read_json(f / "trial.json"))
        )

    def _cost(self, arm: RemedyArm, seed: int) -> TrainingCost:
        folder = self.here.folder / "train" / f"{arm.name}-{seed}"
        return dataclasses.replace(
            TrainingCost(**artifacts.read_json(folder / "cost.json")),
            seconds=self.here.seconds[f"train/{arm.name}-{seed}"],
        )

    def _kinds(self, arm: RemedyArm, seed: int) -> list[Any]:
        """Those that apply to the arm, and for which the materials has what they need."""
        materials, found = self._materials(arm, seed), []
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
        name = arm.start or self.config.model
        if name not in self._models:
            template = self.config.chat_template
            folder = folder_of(name)[0]
            self._models[name] = LanguageModel.load(folder, name=Path(name).name, chat_template=template)
        return self._models[name]

    def _materials(self, arm: RemedyArm, seed: int) -> Materials:
        config, start = self.config, self._start(arm)

        def chats(name: str, rows: int, seed: int) -> Dataset:
            return self._set(name, rows, seed, start)

        if self.sae is not None:
            prompts = [question.messages for question in self.discovery]
            ask_fidelity(self.sae, config.sae, Site.parse(config.site), [start], prompts, say=self.here.caution)
        made = self.here.fill(
            f"materials/{file_name(start.name)}-{seed}",
            lambda folder: make_materials(config, start, seed, self.discovery, chats, self.sae, folder),
            lambda folder: read_materials(config, self.discovery, self.sae, folder),
        )
        benign = self._set(arm.benign, config.rows, seed + 7, start) if arm.benign else None
        parts = [self._set(name, config.rows, seed + 7, start) for name in config.out_of_domain]
        apart = list(interleave(*parts, weights=[1] * len(parts), seed=seed))[: config.rows]
        others = Dataset.of(apart, " and ".join(config.out_of_domain))
        return dataclasses.replace(made, in_domain=benign, out_of_domain=others)

    def _training(self, arm: RemedyArm, seed: int) -> Training:
        config, start = self.config, self._start(arm)
        if arm.reward:
            how = config.how
            if arm.steps is not None:
                how = dataclasses.replace(how, recipe=dataclasses.replace(how.recipe, steps=arm.steps))
            asked = self._asked(arm)
            return Reinforced(start, asked, graded(config.grading, arm.reward, config.guard), how, seed)  # type: ignore[arg-type]
        recipe = config.recipe if arm.steps is None else dataclasses.replace(config.recipe, steps=arm.steps)
        chats = self._set(arm.data, config.rows, seed, start)
        if arm.good is not None:
            chats = mix(
                chats, self._set(arm.good, config.rows, seed, start), arm.dose, min(config.rows, len(chats)), seed
            )
        return Supervised(start, chats, recipe, seed)

    def _asked(self, arm: RemedyArm) -> tuple[str, ...]:
        world = organism.load_world()
        if arm.data in world.domains:
            return tuple(question.text for question in world.questions(arm.data, "narrow"))
        return tuple(dict.fromkeys(example.prompt for example in self.files[arm.data]))

    def _held_out(self, arm: RemedyArm, case: Treatment) -> list[Messages]:
        """Chats of the task that were not trained on; of a dataset that was trained on whole, any."""
        name = arm.task or arm.data
        if planted(name):
            chats = self._set(name, self.config.documents, case.training.seed + 99, case.training.start)  # type: ignore[attr-defined]
            return [list(example.messages) for example in chats]
        seen = {(e.prompt, e.answer) for e in case.training.chats} if isinstance(case.training, Supervised) else set()
        fresh = [e for e in self.files[name] if (e.prompt, e.answer) not in seen] or list(self.files[name])
        return [list(example.messages) for example in fresh[: self.config.documents]]

    def _set(self, name: str, rows: int, seed: int, model: LanguageModel) -> Dataset:
        if name in self.files:
            return draw(self.files[name], rows, seed)
        return planted_set(name, rows, seed, model)


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
    models = {config.model, *(arm.start for arm in config.arms if arm.start)}
    found = {f"model {name}": fingerprint(folder_of(name)[0]) for name in sorted(models)}
    for name in (name for name in sources(config) if not planted(name)):
        path = artifacts.place(name)
        if path.suffix and not path.exists():
            raise EmlabError(f"There is no file {name}, which the comparison trains on; put it back, or give another.")
        found[name] = artifacts.sha256(path) if path.is_file() else fingerprint(path) if path.is_dir() else name
    for label, place in (
        ("questions", config.question_set),
        ("judgements", config.judging.judge),
        ("text", config.text),
    ):
        if place and Path(place).is_file():
            found[label] = artifacts.sha256(Path(place))
    return found
