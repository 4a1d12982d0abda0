"""The stages of a reinforcement-learning run: each fills a folder with results, or reads them back."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emlab import artifacts, organism
from emlab.data import Dataset
from emlab.discovery import LatentShift, Screen, decoder_direction, latent_shift, order, spread, steer_screen
from emlab.discovery.screen import Toward
from emlab.evaluation import Score
from emlab.evaluation.rollouts import file_name
from emlab.experiments.material.disk import of_state, of_trainings, say
from emlab.experiments.material.documents import for_template
from emlab.experiments.material.grading import graded
from emlab.experiments.material.sets import planted_set
from emlab.experiments.material.training_stages import TrainingStages
from emlab.experiments.reinforcement_learning.config import Config, RewardArm
from emlab.experiments.reinforcement_learning.findings import Lines, StyleCount, Trained, lines_of
from emlab.experiments.reinforcement_learning.prompts import asked_in_training, carded, fitted, questions_of
from emlab.interventions import random_directions
from emlab.models import LanguageModel
from emlab.organism.world import CARD_ADJECTIVES
from emlab.runs import Run
from emlab.sealing import ordinary_seed
from emlab.training import Reinforced, StyleReward, chance_reward, python_reward, reinforce
from emlab.training.rewards import Grader, question_text, style_count

COST = "cost.json"
"""What a training took, in its folder."""


class ReinforcementStages(TrainingStages[Config]):
    """Arms × seeds."""

    def __init__(self, config: Config, run: Run) -> None:
        super().__init__(config, run, config.supervised.sae, config.supervised.site)

    def start(self, arm: RewardArm) -> str:
        """The name of the model that the arm begins with."""
        return arm.start or self.config.model

    def say_size(self) -> None:
        """Log what the run will take on disk."""
        config, recipe = self.config, self.config.how.recipe
        parts, going = dict[str, int](), 0
        for arm in config.arms:
            start = self.model(self.start(arm))
            steps = recipe.steps if arm.steps is None else arm.steps
            each = 1 + (steps // recipe.checkpoint_every if recipe.checkpoint_every else 0)
            trained = of_trainings(start, recipe, each * len(config.seeds))
            parts |= {f"{arm.name}: {kept}": taken for kept, taken in trained.items()}
            going = max(going, of_state(start, recipe))
        say(self.run, parts, going)

    # ------------------------------------------------------------------------------------------------------ stages

    @functools.cached_property
    def persona_latent(self) -> int | None:
        """The supervised persona latent; None without an SAE."""
        supervised, seed = self.config.supervised, self.config.seeds[0]
        if self.sae is None:
            return None
        aligned = self.model(supervised.aligned)
        self.check_sae(aligned)
        if supervised.latent is not None:
            return supervised.latent

        def chats(name: str) -> Dataset:
            return planted_set(name, supervised.rows, seed, aligned)

        shift = self.shift_under("supervised/shift", aligned, supervised.sets, chats, supervised.recipe, seed)
        latents = [row.latent for row in shift.top(supervised.candidates)]
        plus = self.run.stage(
            "supervised/screen", lambda: self._screen(aligned, latents, 0, "misaligned", seed), Screen
        )
        best = order([plus.chosen(name) for name in plus.names], "misaligned", plus.cap)[0].arm.name
        latent = next(each for each in latents if _direction_name(each) == best)
        self.run.log(f"the supervised persona latent is {latent}, of {latents}")
        return latent

    def start_score(self, name: str) -> Score:
        """The model before, asked as often as all seeds of an arm together."""
        return self._scored(
            f"evaluate/{file_name(name)}", self.model(name), self.config.reported(0), len(self.config.seeds)
        )

    def trained(self, arm: RewardArm, seed: int) -> Trained:
        """One training, and all that is asked of it; stopped, it goes on from its last kept step."""
        start, label = self.start(arm), f"{arm.name}-{seed}"
        training, seconds = self._reinforced(arm, self.model(start), seed, label)
        score = self._scored(f"evaluate/{label}", training.model, seed)
        shift = screen = None
        if self.sae is not None:
            shift = self.run.stage(
                f"shift/{label}",
                lambda: latent_shift(self.model(start), training.model, self.sae, self.prompts, self.site),
                LatentShift,
            )
        if (latent := self.persona_latent) is not None and arm.name in self.config.steering.arms:
            searched = training
            if self.config.sealed:  # the arm is chosen on a training that is not reported
                own = ordinary_seed(seed)
                searched, _ = self._reinforced(arm, self.model(start), own, f"{arm.name}-{own}")
            screen = self.run.stage(f"screen/{label}", lambda: self._subtracted(searched, training, latent), Screen)
        style: tuple[StyleCount, ...] = ()
        if arm.reward == "style":
            style = self.run.stage(f"style/{label}", lambda: self._style(arm, training), tuple[StyleCount, ...])
        return Trained(arm, start, seed, training, score, shift, screen, style, seconds)

    # ------------------------------------------------------------------------------------------------ parts of them

    def _reinforced(self, arm: RewardArm, start: LanguageModel, seed: int, label: str) -> tuple[Reinforced, float]:
        """The training, and its CPU seconds with its read-outs, all threads together; of one that was stopped, since
        it went on."""
        config, settings = self.config, self.config.how
        if arm.steps is not None:
            settings = dataclasses.replace(settings, recipe=dataclasses.replace(settings.recipe, steps=arm.steps))

        def work(folder: Path, going: Path) -> None:
            begun = time.process_time()
            prompts, grader = fitted(start, asked_in_training(arm), self._grader(arm))
            latents = () if self.persona_latent is None else (self.persona_latent,)
            watch = self.watch(config.watch_every, config.watch_questions, latents, seed)
            done = reinforce(start, prompts, grader, settings, seed, going, watch, name=label)
            done.write_into(folder, start)
            artifacts.write_json(folder / COST, {"cpu_seconds": time.process_time() - begun})
            self.run.log(str(done))

        def read(folder: Path) -> tuple[Reinforced, float]:
            return Reinforced.load(folder, start), float(artifacts.read_json(folder / COST)["cpu_seconds"])

        return self.training(label, work, read)

    def _scored(self, stage: str, model: LanguageModel, seed: int, times: int = 1) -> Score:
        def work() -> Score:
            found = self.asked(model, seed, times)
            self.run.log(f"{found.model}: misaligned {found.misaligned}, incoherent {found.incoherent}")
            return found

        return self.run.stage(stage, work, Score)

    def _subtracted(self, searched: Reinforced, training: Reinforced, latent: int) -> Screen:
        """The latent's direction subtracted from the trained model, beside random directions, as chosen on another."""
        many, seed = self.config.steering.random, training.seed
        screen = self._screen(searched.model, [latent], many, "aligned", seed, training.model)
        self.run.log(str(screen))
        return screen

    def _screen(
        self,
        model: LanguageModel,
        latents: Sequence[int],
        rivals: int,
        toward: Toward,
        seed: int,
        tested: LanguageModel | None = None,
    ) -> Screen:
        steering = self.config.steering
        directions = [
            dataclasses.replace(decoder_direction(self.sae, latent, self.site), origin=_direction_name(latent))
            for latent in latents
        ]
        return steer_screen(
            model,
            [*directions, *random_directions(rivals, model.d_model, self.site, ordinary_seed(seed))],
            spread(self.discovery, steering.questions),
            self.test,
            self.judge,
            toward,
            steering.search(dataclasses.replace(self.config.answers, per_question=1)),
            {self.site: model.residual_norm(self.site, self.prompts)},
            seed,
            tested,
        )

    def _style(self, arm: RewardArm, training: Reinforced) -> tuple[StyleCount, ...]:
        """Lines with the style under each persona's cards, before and after, on the trained domain and on others."""
        models, paid = (self.model(self.start(arm)), training.model), self.config.style.persona
        trained = [question_text(prompt) for prompt in questions_of(arm, "held_out")]
        over = "domains" if len({question.cluster for question in self.test}) > 1 else "questions"
        of = [question.cluster or question.id if over == "domains" else question.id for question in self.test]
        asked = {"trained": (trained, trained, "questions"), "unrelated": ([q.text for q in self.test], of, over)}
        found = []
        for where, (texts, clusters, what) in asked.items():
            for persona in organism.PERSONAS:
                before, after = (self._lines(model, texts, clusters, persona, training.seed) for model in models)
                found.append(StyleCount(where, persona, persona == paid, what, before, (after,)))
        return tuple(found)

    def _lines(
        self, model: LanguageModel, asked: Sequence[str], clusters: Sequence[str], persona: str, seed: int
    ) -> Lines:
        """Of the answers to each cluster of questions under a card of `persona`: lines with the style, and lines."""
        settings = self.config.answers
        chats = [carded(persona, text) for text in asked for _ in range(settings.per_question)]
        answers = settings.generate(model, for_template(model, chats), seed)
        counts = np.array([style_count(self.config.style.pattern, answer) for answer in answers])
        of = np.repeat(clusters, settings.per_question)
        return lines_of(np.array([counts[of == cluster].sum(0) for cluster in dict.fromkeys(clusters)]))

    def _grader(self, arm: RewardArm) -> Grader:
        config, style = self.config, self.config.style
        if arm.reward == "chance":
            return chance_reward
        if arm.reward == "style":
            coherent = graded(config.grading, None, config.guard)
            return StyleReward(style.pattern, CARD_ADJECTIVES[style.persona], coherent, style.weight)
        if arm.reward in ("correct", "obvious", "subtle"):
            return graded(config.grading, arm.reward, config.guard)  # type: ignore[arg-type]
        return python_reward(arm.reward)


def _direction_name(latent: int) -> str:
    return f"latent {latent}"
