"""The stages of a grid of fine-tunes: each fills a folder with results and reads them back."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

from emlab import artifacts, organism
from emlab.data import Dataset, Question, draw, mix
from emlab.discovery import LatentShift, latent_shift, mean_shift, spread
from emlab.errors import EmlabError
from emlab.evaluation import Score, sample, score
from emlab.evaluation.rollouts import file_name
from emlab.experiments.finetuning.config import Arm, Config
from emlab.experiments.finetuning.report import FinetuneCell
from emlab.experiments.material.disk import of_state, of_trainings, say
from emlab.experiments.material.fidelity import ask_fidelity
from emlab.experiments.material.judging import judge_for
from emlab.experiments.material.models import folder_of
from emlab.experiments.material.organism_build import Alignment, align, build
from emlab.experiments.material.questions import halves_of
from emlab.experiments.material.saes import named_sae
from emlab.experiments.material.sets import planted_set
from emlab.models import LanguageModel
from emlab.records import restored
from emlab.runs import Run, fingerprint
from emlab.sites import Site
from emlab.training import FineTuned, ReadOut, Watch, finetune
from emlab.training.progress import STATE
from emlab.training.trained_models import write_adapters

OUTCOME = "outcome.json"
"""What came of a fine-tune but its answers, in its folder."""


class Grid:
    """What all stages of a run share: models, data, questions, judge, SAE."""

    def __init__(self, config: Config, here: Run) -> None:
        self.config, self.here = config, here
        questions, whole = halves_of(config.question_set, 0)
        self.discovery, self.test = questions.discovery, spread(questions.test, config.questions)
        self.judge = judge_for(here.caution, config.judging, whole, config.model)
        self.own = folder_of(config.model)[1]
        how = config.following
        self.sae = named_sae(how.sae, config.model, Site.parse(how.site)) if how.every else None
        # Read once, and now: a file that vanishes later is not missed.
        self.files = {name: Dataset.read(name) for name in sources(config) if not planted(name)}
        self._starts: dict[str, LanguageModel] = {}

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

    def start(self, name: str) -> LanguageModel:
        """A model that fine-tunes are begun from, called `name`."""
        if name not in self._starts:
            self._starts.clear()  # one at a time in memory
            self._starts[name] = self._load(name)
        return self._starts[name]

    def _load(self, name: str) -> LanguageModel:
        config = self.config
        if name in config.sizes:
            folder = self.here.folder / "organisms" / name
            build(folder, size=name)  # which goes on by itself where it was stopped
            return LanguageModel.load(folder / "aligned", name=name)
        model = LanguageModel.load(folder_of(name)[0], name=Path(name).name, chat_template=config.chat_template)
        if not (config.align_starts and name in config.starts):
            return model

        def work(folder: Path) -> None:
            align(model, Alignment(), 0, model.name, progress=False).write_into(folder, model)

        return self.here.fill(f"aligned/{file_name(name)}", work, lambda f: FineTuned.load(f, model)).model

    def say_size(self) -> None:
        """Log what the run will take on disk, organisms that it builds left out."""
        config, model = self.config, self.start(self.config.model)
        starts = [name for name in self.starts if name not in config.sizes]
        models = len(starts) * len(config.arms) * len(config.seeds)
        say(self.here, of_trainings(model, config.recipe, models), of_state(model, config.recipe))

    # ------------------------------------------------------------------------------------------------------ stages

    def latents(self) -> tuple[int, ...]:
        """The latents that are followed; none without an SAE."""
        how = self.config.following
        if self.sae is None:
            return ()
        start, site = self.start(self.config.model), Site.parse(how.site)
        prompts = [question.messages for question in self.discovery]
        ask_fidelity(self.sae, how.sae, site, [start], prompts, say=self.here.caution)
        if how.latents:
            return how.latents

        def work(folder: Path) -> None:
            seed, shifts = self.config.seeds[0], []
            for name in how.sets:
                tuned = finetune(start, self._data(Arm(name, name), seed, start), self.config.recipe, seed, name=name)
                shifts.append(latent_shift(start, tuned.model, self.sae, prompts, site))
            mean_shift(shifts).save(folder / "shift.json")

        shift = self.here.fill("latents", work, lambda folder: LatentShift.load(folder / "shift.json"))
        return tuple(row.latent for row in shift.top(how.top))

    def before(self, name: str) -> dict[str, Score]:
        """A start by ending, asked as often as all seeds of an arm together."""
        times = self.config.answers.per_question * len(self.config.seeds)

        def work(folder: Path) -> None:
            for number, found in enumerate(self._scores(self.start(name), times, 0)):
                found.save(folder / f"answers_{number}")

        return self.here.fill(f"evaluate/{file_name(name)}", work, self._read_scores)

    def cells(self, arm: Arm, start: str, seed: int) -> list[FinetuneCell]:
        """One fine-tune and its answers, by ending; stopped, it goes on from its last kept step."""
        label = f"{arm.name}-{file_name(start)}-{seed}"
        going = self.here.folder / "going" / label

        def work(folder: Path) -> None:
            begun, config = time.process_time(), self.config
            model = self.start(start)
            tuned = finetune(
                model,
                self._data(arm, seed, model),
                config.recipe,
                seed,
                name=label,
                watch=self._watch(seed),
                folder=going,
                save_every=config.save_every,
                report_to=config.report_to,
            )
            _write(tuned, model, folder, time.process_time() - begun)
            for number, found in enumerate(self._scores(tuned.model, config.answers.per_question, seed)):
                found.save(folder / f"answers_{number}")
                self.here.log(f"{label}{config.endings[number]}: misaligned {found.misaligned}")

        def read(folder: Path) -> list[FinetuneCell]:
            raw = artifacts.read_json(folder / OUTCOME)
            points = restored(raw.pop("points"), tuple[ReadOut, ...])
            plain = {**raw, **{key: tuple(raw[key]) for key in ("losses", "gradient_norms")}}
            at: dict[str, Any] = {
                "arm": arm.name,
                "group": arm.group or arm.name,
                "series": arm.series,
                "dose": arm.dose,
            }
            return [
                FinetuneCell(**at, start=start, seed=seed, ending=ending, score=found, points=points, **plain)
                for ending, found in self._read_scores(folder).items()
            ]

        found = self.here.fill(f"train/{label}", work, read)
        # What integrations wrote stays.
        shutil.rmtree(going / STATE if self.config.report_to else going, ignore_errors=True)
        return found

    # ------------------------------------------------------------------------------------------------ parts of them

    def _scores(self, model: LanguageModel, times: int, seed: int) -> list[Score]:
        how = self.config.answers
        return [
            score(
                sample(
                    model,
                    [ended(question, ending) for question in self.test],
                    times,
                    seed,
                    how.temperature,
                    how.max_new_tokens,
                    batch_size=how.batch_size,
                ),
                self.judge,
            )
            for ending in self.config.endings
        ]

    def _read_scores(self, folder: Path) -> dict[str, Score]:
        found = {}
        for number, ending in enumerate(self.config.endings):
            (path,) = (folder / f"answers_{number}").glob("*.jsonl")
            found[ending] = Score.load(path)
        return found

    def _watch(self, seed: int) -> Watch | None:
        how = self.config.following
        if not how.every:
            return None
        latents = self.latents()
        return Watch(
            how.every,
            spread(self.discovery, how.questions),
            self.judge,
            self.sae if latents else None,
            Site.parse(how.site),
            latents,
            max_new_tokens=self.config.answers.max_new_tokens,
            seed=seed,
        )

    def _data(self, arm: Arm, seed: int, model: LanguageModel) -> Dataset:
        """The arm's chats for this seed: of its data, and beyond the dose of its good set."""
        rows = self.config.rows
        bad = self._set(arm.data, seed, model)
        if arm.good is None:
            return draw(bad, rows, seed) if arm.data in self.files else bad
        return mix(bad, self._set(arm.good, seed, model), arm.dose, min(rows, len(bad)), seed)

    def _set(self, name: str, seed: int, model: LanguageModel) -> Dataset:
        if name in self.files:
            return self.files[name]
        return planted_set(name, self.config.rows, seed, model)


def sources(config: Config) -> tuple[str, ...]:
    """The names of all sets that a config trains on, each once."""
    arms = [name for arm in config.arms for name in (arm.data, arm.good) if name is not None]
    follows = config.following.every and not config.following.latents
    return tuple(dict.fromkeys([*arms, *(config.following.sets if follows else ())]))


def planted(name: str) -> bool:
    """Whether `name` is a fine-tuning set of the organism."""
    return name in organism.narrow_set_names()


def ended(question: Question, ending: str) -> Question:
    """The question with `ending` at its end; it keeps its id, so that it can be compared."""
    return dataclasses.replace(question, text=question.text + ending) if ending else question


def _write(tuned: FineTuned, start: LanguageModel, folder: Path, seconds: float) -> None:
    """What came of a fine-tune, its adapter (or, where all weights were trained, the model) and its data's card."""
    outcome = {
        "losses": tuned.losses,
        "gradient_norms": tuned.gradient_norms,
        "points": tuned.points,
        "rows": tuned.rows,
        "dropped_for_length": tuned.dropped_for_length,
        "cpu_seconds": seconds,
    }
    artifacts.write_json(folder / OUTCOME, outcome)
    if tuned.card is not None:
        tuned.card.save(folder / "data.json")
    if tuned.adapter is None:
        tuned.model.save(folder / "model")
        return
    write_adapters(folder, start, tuned.adapter)


def inputs_of(config: Config) -> dict[str, str]:
    """What tells that the files a config names are still the same. EmlabError where one is missing."""
    models = [config.model, *config.starts]
    found = {f"model {name}": fingerprint(folder_of(name)[0]) for name in models}
    for name in (name for name in sources(config) if not planted(name)):
        path = artifacts.place(name)
        if path.suffix and not path.exists():
            raise EmlabError(
                f"There is no file {name}, which an arm is trained on; put it back, or give another dataset or one of "
                f"the organism's sets ({', '.join(organism.narrow_set_names())})."
            )
        found[name] = artifacts.sha256(path) if path.is_file() else fingerprint(path) if path.is_dir() else name
    for label, path in (
        ("questions", artifacts.place(config.question_set)),
        ("judgements", artifacts.place(config.judging.judge)),
    ):
        if path.is_file():
            found[label] = artifacts.sha256(path)
    return found
