"""What the stages of experiments that train models share: models, questions, judge and SAE, and what is done with them.

A subclass adds what it trains; every stage fills a folder of the run, or reads what is there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from emlab.data import Dataset, Messages, Question
from emlab.discovery import LatentShift, latent_shift, mean_shift, spread
from emlab.evaluation import Score, score
from emlab.experiments.material.config import BehaviourConfig
from emlab.experiments.material.fidelity import ask_fidelity
from emlab.experiments.material.judging import judge_for
from emlab.experiments.material.models import model_named
from emlab.experiments.material.questions import halves_of
from emlab.experiments.material.saes import named_sae
from emlab.experiments.material.sealing import open_seal
from emlab.models import LanguageModel
from emlab.runs import Run
from emlab.sites import Site
from emlab.training import Recipe, Watch, finetune
from emlab.training.progress import STATE

C = TypeVar("C", bound=BehaviourConfig)
T = TypeVar("T")


class TrainingStages(Generic[C]):
    """Models, questions, judge and SAE of one run."""

    def __init__(self, config: C, run: Run, sae: str | None, site: str) -> None:
        """
        Args:
            config: Names the model, the questions and the judge.
            run: Whose folder is filled.
            sae: As a config names an SAE; None reads no latents.
            site: Where it reads.
        """
        self.config, self.run = config, run
        halves, whole = halves_of(config.question_set, 0, config.sealed, config.variants)
        self.discovery, self.test = halves.discovery, spread(halves.test, config.questions)
        open_seal(run, config)
        self.judge = judge_for(run.caution, config.judging, whole, config.model)
        self.sae_name, self.site = sae, Site.parse(site)
        self.sae = named_sae(sae, config.model, self.site)
        self.models: dict[str, LanguageModel] = {}

    @property
    def prompts(self) -> list[Messages]:
        """The discovery questions as chats."""
        return [question.messages for question in self.discovery]

    def model(self, name: str) -> LanguageModel:
        """A model that trainings begin from, as the config names it; loaded once."""
        if name not in self.models:
            self.models[name] = model_named(name, self.config.chat_template)
        return self.models[name]

    def asked(
        self, model: LanguageModel, seed: int, times: int = 1, questions: Sequence[Question] | None = None
    ) -> Score:
        """The score of `model` on the test `questions` (None: all), asked `times` as often as the config says."""
        settings = self.config.answers
        asked = self.test if questions is None else questions
        return score(settings.sample(model, asked, seed, per_question=times * settings.per_question), self.judge)

    def training(
        self, label: str, work: Callable[[Path, Path], object], read: Callable[[Path], T], logs: bool = False
    ) -> T:
        """A training: `work` fills the first folder, and goes on from what it keeps in the second where it was stopped.

        The second is removed when all is done; with `logs` what integrations wrote into it stays.
        """
        going = self.run.folder / "going" / label
        found = self.run.fill(f"train/{label}", lambda folder: work(folder, going), read)
        shutil.rmtree(going / STATE if logs else going, ignore_errors=True)
        return found

    def watch(self, every: int, questions: int, latents: tuple[int, ...], seed: int) -> Watch:
        """What is read along a training every so many steps, on discovery questions, evenly spaced; 0 asks none."""
        asked = spread(self.discovery, questions) if questions else ()
        latents = latents if asked else ()
        sae, length = self.sae if latents else None, self.config.answers.max_new_tokens
        return Watch(every, asked, self.judge, sae, self.site, latents, max_new_tokens=length, seed=seed)

    def check_sae(self, model: LanguageModel) -> None:
        """A caution at the head of the report where there is an SAE and it does not describe `model`."""
        if self.sae is not None:
            ask_fidelity(self.sae, self.sae_name, self.site, [model], self.prompts, say=self.run.caution)

    def shift_under(
        self,
        stage: str,
        start: LanguageModel,
        sets: Sequence[str],
        chats: Callable[[str], Dataset],
        recipe: Recipe,
        seed: int,
    ) -> LatentShift:
        """How far every latent moves from `start` under fine-tunes, the mean; found by the stage of that name.

        Args:
            stage: Names the stage.
            start: What is fine-tuned.
            sets: The names of the sets it is fine-tuned on, one after the other.
            chats: Makes a set of its name.
            recipe: Of the fine-tunes.
            seed: Of the fine-tunes.
        """

        def work() -> LatentShift:
            shifts = []
            for name in sets:
                tuned = finetune(start, chats(name), recipe, seed, name=name)
                shifts.append(latent_shift(start, tuned.model, self.sae, self.prompts, self.site))
            return mean_shift(shifts)

        return self.run.stage(stage, work, LatentShift)
