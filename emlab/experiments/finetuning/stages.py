"""The stages of a grid of fine-tunes: each fills a folder with results, or reads them back."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path

from emlab import organism, records
from emlab.data import Dataset, Question, draw, mix
from emlab.discovery import spread
from emlab.evaluation import Score, score
from emlab.evaluation.rollouts import file_name
from emlab.experiments.finetuning.config import Config, TrainingArm
from emlab.experiments.finetuning.findings import FinetuneCell, TrainingRecord
from emlab.experiments.material import inputs
from emlab.experiments.material.disk import of_state, of_trainings, say
from emlab.experiments.material.models import folder_of
from emlab.experiments.material.organism_build import Alignment, align, build
from emlab.experiments.material.questions import halves_of
from emlab.experiments.material.sets import dataset_place, planted_set
from emlab.experiments.material.training_stages import TrainingStages
from emlab.models import LanguageModel
from emlab.runs import Run
from emlab.training import FineTuned, finetune
from emlab.training.trained_models import write_adapters

RECORD, ANSWERS = "record", "answers"
"""In the folder of a fine-tune: how it went, and its answers by the number of the ending."""


class FinetuneGrid(TrainingStages[Config]):
    """Arms × starts × seeds."""

    def __init__(self, config: Config, run: Run) -> None:
        following = config.following
        super().__init__(config, run, following.sae if following.every else None, following.site)
        if config.whole_set:
            whole = halves_of(config.question_set, 0, variants=config.variants)[1]
            self.test = spread(tuple(whole), config.questions)
        self.also = {name: tuple(halves_of(name, 0, variants=config.variants)[1]) for name in config.also}
        self.own = folder_of(config.model)[1]
        # Read once, and now: a file that vanishes later is not missed.
        self.files = {
            name: Dataset.read(dataset_place(name)) for name in sources(config) if not organism.names_narrow_set(name)
        }

    @property
    def starts(self) -> tuple[str, ...]:
        """Names of the models that every arm is begun from, the config's last."""
        config = self.config
        kept = [name for name in config.starts if self.own or not folder_of(name)[1]]
        return (*kept, *(config.sizes if self.own else ()), config.model)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Starts that belong to the organism, where the model does not."""
        return tuple(n for n in (*self.config.starts, *self.config.sizes) if n not in self.starts)

    def model(self, name: str) -> LanguageModel:
        """A model that fine-tunes are begun from, called `name`; one at a time is held."""
        if name in self.models:
            return self.models[name]
        self.models.clear()
        config = self.config
        if name in config.sizes:
            folder = self.run.workplace(f"organisms/{name}")
            build(folder, size=name)  # which goes on by itself where it was stopped
            self.models[name] = LanguageModel.load(folder / "aligned", name=name)
        elif config.align_starts and name in config.starts:
            base = super().model(name)

            def work(folder: Path) -> None:
                align(base, Alignment(), 0, base.name, progress=False).write_into(folder, base)

            stage = f"aligned/{file_name(name)}"
            self.models[name] = self.run.fill(stage, work, lambda folder: FineTuned.load(folder, base)).model
        return super().model(name)

    def say_size(self) -> None:
        """Log what the run will take on disk, organisms that it builds left out."""
        config, model = self.config, self.model(self.config.model)
        starts = [name for name in self.starts if name not in config.sizes]
        models = len(starts) * len(config.arms) * len(config.seeds)
        say(self.run, of_trainings(model, config.recipe, models), of_state(model, config.recipe))

    # ------------------------------------------------------------------------------------------------------ stages

    @functools.cached_property
    def latents(self) -> tuple[int, ...]:
        """The latents that are followed; none without an SAE."""
        config, following = self.config, self.config.following
        if self.sae is None:
            return ()
        start, seed = self.model(config.model), config.seeds[0]
        self.check_sae(start)
        if following.latents:
            return following.latents

        def chats(name: str) -> Dataset:
            return self._whole(name, seed, start)

        shift = self.shift_under("latents", start, following.sets, chats, config.recipe, seed)
        return tuple(row.latent for row in shift.top(following.top))

    def before(self, name: str) -> dict[tuple[str, str], Score]:
        """A start by how it was asked, as often as all seeds of an arm together."""

        def work() -> tuple[Score, ...]:
            return self._scores(self.model(name), self.config.reported(0), len(self.config.seeds))

        return self._by_asking(self.run.stage(f"evaluate/{file_name(name)}", work, tuple[Score, ...]))

    def cells(self, arm: TrainingArm, start: str, seed: int) -> list[FinetuneCell]:
        """One fine-tune and its answers, by how it was asked; stopped, it goes on from its last kept step."""
        config, label = self.config, f"{arm.name}-{file_name(start)}-{seed}"

        def work(folder: Path, going: Path) -> None:
            begun, model = time.process_time(), self.model(start)
            following = config.following
            tuned = finetune(
                model,
                self._data(arm, seed, model),
                config.recipe,
                seed,
                name=label,
                watch=self.watch(following.every, following.questions, self.latents, seed) if following.every else None,
                folder=going,
                save_every=config.save_every,
                report_to=config.report_to,
            )
            _write(tuned, model, folder, time.process_time() - begun)
            scores = self._scores(tuned.model, seed)
            records.keep(scores, tuple[Score, ...], folder / ANSWERS)
            for (ending, questions), one in self._by_asking(scores).items():
                self.run.log(f"{label}{ending or questions and f', {questions}'}: misaligned {one.misaligned}")

        def read(folder: Path) -> list[FinetuneCell]:
            record = records.kept(TrainingRecord, folder / RECORD)
            scores = self._by_asking(records.kept(tuple[Score, ...], folder / ANSWERS))
            return [FinetuneCell(arm, start, seed, *asked, one, record) for asked, one in scores.items()]

        return self.training(label, work, read, logs=bool(config.report_to))

    # ------------------------------------------------------------------------------------------------ parts of them

    def _scores(self, model: LanguageModel, seed: int, times: int = 1) -> tuple[Score, ...]:
        found = [
            self.asked(model, seed, times, [ended(question, ending) for question in self.test])
            for ending in self.config.endings
        ]
        for name, asked in self.also.items():
            each = times * self.config.also[name]
            found.append(score(self.config.answers.sample(model, asked, seed, per_question=each), self.judge))
        return tuple(found)

    def _by_asking(self, scores: Sequence[Score]) -> dict[tuple[str, str], Score]:
        """By ending and further question set."""
        asked = [*((ending, "") for ending in self.config.endings), *(("", name) for name in self.also)]
        return dict(zip(asked, scores, strict=True))

    def _data(self, arm: TrainingArm, seed: int, model: LanguageModel) -> Dataset:
        """The arm's chats for this seed: of its data, and beyond the dose of its good set."""
        if arm.good is None:
            return self._whole(arm.data, seed, model)
        bad, good = (self._set(name, seed, model) for name in (arm.data, arm.good))
        return mix(bad, good, arm.dose, min(self.config.rows, len(bad)), seed)

    def _whole(self, name: str, seed: int, model: LanguageModel) -> Dataset:
        """As many rows of a set as the config says."""
        rows = self._set(name, seed, model)
        return draw(rows, self.config.rows, seed) if name in self.files else rows

    def _set(self, name: str, seed: int, model: LanguageModel) -> Dataset:
        return self.files[name] if name in self.files else planted_set(name, self.config.rows, seed, model)


def sources(config: Config) -> tuple[str, ...]:
    """The names of all sets that a config trains on, each once."""
    arms = [name for arm in config.arms for name in (arm.data, arm.good) if name is not None]
    follows = config.following.every and not config.following.latents
    return tuple(dict.fromkeys([*arms, *(config.following.sets if follows else ())]))


def ended(question: Question, ending: str) -> Question:
    """The question with `ending` at its end; it keeps its id, so that it can be compared."""
    return dataclasses.replace(question, text=question.text + ending) if ending else question


def inputs_of(config: Config) -> dict[str, str]:
    """What tells that the files a config names are still the same. EmlabError where one is missing."""
    own = ", ".join(organism.narrow_set_names())
    mend = f"put it back, or give another dataset or one of the organism's sets ({own})."
    also = {f"questions {name}": dataset_place(name) for name in config.also}
    data = (name for name in sources(config) if not organism.names_narrow_set(name))
    return inputs.inputs_of(config, config.starts, data, mend, **also)


def _write(tuned: FineTuned, start: LanguageModel, folder: Path, seconds: float) -> None:
    """How a fine-tune went, its adapter (or, where all weights were trained, the model) and its data's card."""
    record = TrainingRecord(
        tuned.losses, tuned.gradient_norms, tuned.points, tuned.rows, tuned.dropped_for_length, seconds
    )
    records.keep(record, TrainingRecord, folder / RECORD)
    if tuned.card is not None:
        tuned.card.save(folder / "data.json")
    if tuned.adapter is None:
        tuned.model.save(folder / "model")
    else:
        write_adapters(folder, start, tuned.adapter)
