"""The stages of a reinforcement-learning run: each fills a folder with results and reads them back."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emlab import artifacts, organism
from emlab.data import read_prompts
from emlab.discovery import (
    LatentShift,
    Screen,
    decoder_direction,
    latent_shift,
    mean_shift,
    order,
    spread,
    steer_screen,
)
from emlab.discovery.screen import Toward
from emlab.evaluation import Score, sample, score
from emlab.evaluation.protocol import EXACT, Judging, completer_of
from emlab.evaluation.rollouts import file_name
from emlab.experiments.material.disk import of_state, of_trainings, say
from emlab.experiments.material.documents import for_template
from emlab.experiments.material.fidelity import ask_fidelity
from emlab.experiments.material.judging import judge_for
from emlab.experiments.material.models import folder_of
from emlab.experiments.material.questions import halves_of
from emlab.experiments.material.saes import named_sae
from emlab.experiments.material.sets import planted_set
from emlab.experiments.reinforcement_learning.config import Arm, Config
from emlab.experiments.reinforcement_learning.report import StyleCount
from emlab.interventions import random_directions
from emlab.models import LanguageModel
from emlab.organism.world import CARD_ADJECTIVES
from emlab.runs import Run
from emlab.sites import Site
from emlab.training import (
    AskedReward,
    ExactReward,
    Reinforced,
    StyleReward,
    Watch,
    chance_reward,
    finetune,
    python_reward,
    reinforce,
)
from emlab.training.rewards import Asked, Grader, Mode, Reward, grader_name, question_text, style_count

COST = "cost.json"
"""What a training took, in its folder."""


class Lab:
    """What all stages of a run share: models, questions, judge, SAE."""

    def __init__(self, config: Config, here: Run) -> None:
        self.config, self.here = config, here
        questions, whole = halves_of(config.question_set, 0)
        self.discovery, self.test = questions.discovery, spread(questions.test, config.questions)
        self.judge = judge_for(here.caution, config.judging, whole, config.model)
        self.site = Site.parse(config.supervised.site)
        self.sae = named_sae(config.supervised.sae, config.model, self.site)
        self._models: dict[str, LanguageModel] = {}

    def model(self, name: str) -> LanguageModel:
        """A model that a training begins with."""
        if name not in self._models:
            folder = folder_of(name)[0]
            self._models[name] = LanguageModel.load(
                folder, name=Path(name).name, chat_template=self.config.chat_template
            )
        return self._models[name]

    def say_size(self) -> None:
        """Log what the run will take on disk."""
        config, recipe = self.config, self.config.how.recipe
        parts, going = dict[str, int](), 0
        for arm in config.arms:
            start = self.model(arm.start or config.model)
            steps = recipe.steps if arm.steps is None else arm.steps
            each = 1 + (steps // recipe.checkpoint_every if recipe.checkpoint_every else 0)
            trained = of_trainings(start, recipe, each * len(config.seeds))
            parts |= {f"{arm.name}: {kept}": taken for kept, taken in trained.items()}
            going = max(going, of_state(start, recipe))
        say(self.here, parts, going)

    # ------------------------------------------------------------------------------------------------------ stages

    def persona_latent(self) -> int | None:
        """The supervised persona latent; None without an SAE."""
        how = self.config.supervised
        if self.sae is None:
            return None
        aligned = self.model(how.aligned)
        ask_fidelity(self.sae, how.sae, self.site, [aligned], self._prompts, say=self.here.caution)
        if how.latent is not None:
            return how.latent

        def work(folder: Path) -> None:
            seed, shifts = self.config.seeds[0], []
            for name in how.sets:
                chats = planted_set(name, how.rows, seed, aligned)
                tuned = finetune(aligned, chats, how.recipe, seed, name=name)
                shifts.append(latent_shift(aligned, tuned.model, self.sae, self._prompts, self.site))
            ranked = mean_shift(shifts)
            ranked.save(folder / "shift.json")
            latents = [row.latent for row in ranked.top(how.candidates)]
            plus = self._screen(aligned, latents, 0, "misaligned", seed)
            plus.save(folder / "screen")
            best = order([plus.chosen(name) for name in plus.names], "misaligned", plus.cap)[0].arm.name
            latent = next(each for each in latents if _direction_name(each) == best)
            artifacts.write_json(folder / "latent.json", {"latent": latent, "candidates": latents})
            self.here.log(f"the supervised persona latent is {latent}, of {latents}")

        return self.here.fill("supervised", work, lambda f: int(artifacts.read_json(f / "latent.json")["latent"]))

    def start_score(self, name: str) -> Score:
        """The model before, asked as often as all seeds of an arm together."""
        times = len(self.config.seeds)
        return self._scored(f"evaluate/{file_name(name)}", self.model(name), self.config.answers.per_question * times)

    def trained(self, arm: Arm, seed: int) -> Reinforced:
        """One training; stopped, it goes on from its last kept step."""
        config, label = self.config, f"{arm.name}-{seed}"
        how = config.how
        if arm.steps is not None:
            how = dataclasses.replace(how, recipe=dataclasses.replace(how.recipe, steps=arm.steps))
        going = self.here.folder / "going" / label

        def work(folder: Path) -> None:
            begun = time.process_time()
            start = self.model(arm.start or config.model)
            prompts, grader = _for_template(start, self._train_prompts(arm), self._grader(arm))
            done = reinforce(
                start,
                prompts,
                grader,
                how,
                seed,
                going,
                self._watch(seed),
                name=label,
            )
            done.write_into(folder, start)
            artifacts.write_json(folder / COST, {"cpu_seconds": time.process_time() - begun})
            self.here.log(str(done))

        done = self.here.fill(
            f"train/{label}", work, lambda f: Reinforced.load(f, self.model(arm.start or config.model))
        )
        shutil.rmtree(going, ignore_errors=True)
        return done

    def cpu_seconds(self, training: Reinforced) -> float:
        """Of a training with its read-outs, all threads together; of one that was stopped, since it went on."""
        return float(artifacts.read_json(self.here.folder / "train" / training.model.name / COST)["cpu_seconds"])

    def scored(self, training: Reinforced) -> Score:
        """The trained model on the test questions."""
        name = training.model.name
        return self._scored(f"evaluate/{name}", training.model, self.config.answers.per_question, training.seed)

    def shifted(self, start: str, training: Reinforced) -> LatentShift | None:
        """How far every latent moves from the model at the start."""
        if self.sae is None:
            return None

        def work(folder: Path) -> None:
            shift = latent_shift(self.model(start), training.model, self.sae, self._prompts, self.site)
            shift.save(folder / "shift.json")

        return self.here.fill(f"shift/{training.model.name}", work, lambda f: LatentShift.load(f / "shift.json"))

    def steered(self, training: Reinforced, latent: int) -> Screen:
        """The latent's direction subtracted from the trained model, beside random directions."""

        def work(folder: Path) -> None:
            how = self.config.steering
            screen = self._screen(training.model, [latent], how.random, "aligned", training.seed)
            screen.save(folder / "screen")
            self.here.log(str(screen))

        return self.here.fill(f"screen/{training.model.name}", work, lambda f: Screen.load(f / "screen"))

    def style(self, arm: Arm, training: Reinforced) -> tuple[StyleCount, ...]:
        """Lines with the style under each persona's cards, before and after, on the trained domain and on others."""

        def work(folder: Path) -> None:
            counts = []
            trained = [question_text(prompt) for prompt in self._texts(arm, "held_out")]
            for where, asked in (("trained", trained), ("unrelated", [q.text for q in self.test])):
                for persona in organism.PERSONAS:
                    models = self.model(arm.start or self.config.model), training.model
                    before, after = (self._style_lines(m, asked, persona, training.seed) for m in models)
                    counts.append(StyleCount(where, persona, persona == self.config.style.persona, before, after))
            artifacts.write_json(folder / "style.json", counts)

        def read(folder: Path) -> tuple[StyleCount, ...]:
            return tuple(
                StyleCount(**{**raw, **{when: tuple((a, n) for a, n in raw[when]) for when in ("before", "after")}})
                for raw in artifacts.read_json(folder / "style.json")
            )

        return self.here.fill(f"style/{training.model.name}", work, read)

    # ------------------------------------------------------------------------------------------------ parts of them

    @property
    def _prompts(self) -> list[Any]:
        return [question.messages for question in self.discovery]

    def _scored(self, stage: str, model: LanguageModel, times: int, seed: int = 0) -> Score:
        how = self.config.answers

        def work(folder: Path) -> None:
            rollouts = sample(
                model, self.test, times, seed, how.temperature, how.max_new_tokens, batch_size=how.batch_size
            )
            found = score(rollouts, self.judge)
            found.save(folder)
            self.here.log(f"{found.model}: misaligned {found.misaligned}, incoherent {found.incoherent}")

        return self.here.fill(stage, work, lambda f: Score.load(f / f"{file_name(model.name)}.jsonl"))

    def _screen(self, model: LanguageModel, latents: Sequence[int], rivals: int, toward: Toward, seed: int) -> Screen:
        how = self.config.steering
        directions = [
            dataclasses.replace(decoder_direction(self.sae, latent, self.site), origin=_direction_name(latent))
            for latent in latents
        ]
        return steer_screen(
            model,
            [*directions, *random_directions(rivals, model.d_model, self.site, seed)],
            how.strengths,
            spread(self.discovery, how.questions),
            self.test,
            self.judge,
            toward,
            scales={self.site: model.residual_norm(self.site, self._prompts)},
            cap=how.incoherence_cap,
            sampling=dataclasses.replace(self.config.answers, per_question=1),
            first_round=how.first_round,
            finalists=how.finalists,
            seed=seed,
        )

    def _style_lines(
        self, model: LanguageModel, asked: Sequence[str], persona: str, seed: int
    ) -> tuple[tuple[int, int], ...]:
        """Of the answers to each question under a card of `persona`: lines with the style, and lines."""
        how = self.config.answers
        chats = [_carded(persona, text) for text in asked for _ in range(how.per_question)]
        answers = model.generate(for_template(model, chats), how.max_new_tokens, how.temperature, seed, how.batch_size)
        counts = np.array([style_count(self.config.style.pattern, answer) for answer in answers])
        summed = counts.reshape(len(asked), how.per_question, 2).sum(1)
        return tuple((int(hits), int(lines)) for hits, lines in summed)

    def _watch(self, seed: int) -> Watch:
        config = self.config
        asked = spread(self.discovery, config.watch_questions) if config.watch_questions else ()
        latent = self.persona_latent() if self.sae is not None and asked else None
        return Watch(
            config.watch_every,
            asked,
            self.judge,
            self.sae if latent is not None else None,
            self.site,
            () if latent is None else (latent,),
            max_new_tokens=config.answers.max_new_tokens,
            seed=seed,
        )

    def _grader(self, arm: Arm) -> Grader:
        config = self.config
        if arm.reward == "chance":
            return chance_reward
        if arm.reward == "style":
            how = config.style
            return StyleReward(how.pattern, CARD_ADJECTIVES[how.persona], self._graded(None), how.weight)
        if arm.reward in ("correct", "obvious", "subtle"):
            return self._graded(arm.reward)  # type: ignore[arg-type]
        return python_reward(arm.reward)

    def _graded(self, mode: Mode | None) -> Grader:
        return graded(self.config.grading, mode, self.config.guard)

    def _train_prompts(self, arm: Arm) -> list[Asked]:
        """What the model is asked in training; for style under a card of every persona."""
        texts = self._texts(arm, "narrow")
        if arm.reward != "style":
            return texts
        return [_carded(persona, question_text(text)) for text in texts for persona in organism.PERSONAS]

    def _texts(self, arm: Arm, role: str) -> list[Asked]:
        """The arm's questions: of a domain, those of templates of `role`; of a dataset, all, each once.

        Of a dataset, a user's turn alone is its text, and all else is a chat; where there is one, all are chats.
        """
        world = organism.load_world()
        if arm.prompts in world.domains:
            return [question.text for question in world.questions(arm.prompts, role)]
        chats = {json.dumps(chat): chat for chat in read_prompts(arm.prompts)}.values()
        if any(len(chat) > 1 for chat in chats):
            return list(chats)
        return [chat[0]["content"] for chat in chats]


def _for_template(model: LanguageModel, prompts: list[Asked], grader: Grader) -> tuple[list[Asked], Grader]:
    """Prompts as the model's template takes them; where it refuses system turns, graders still see the system turn."""
    chats = [prompt for prompt in prompts if not isinstance(prompt, str)]
    if len(chats) < len(prompts):
        return prompts, grader
    shown = for_template(model, chats)
    if shown == chats:
        return prompts, grader
    asked = {put[-1]["content"]: chat for put, chat in zip(shown, chats, strict=True)}

    def as_asked(prompts: Sequence[Asked], answers: Sequence[str]) -> Sequence[float | Reward | None]:
        return grader([asked[question_text(prompt)] for prompt in prompts], answers)

    as_asked.__name__ = grader_name(grader)
    return list(shown), as_asked


def graded(how: Judging, mode: Mode | None, guard: float) -> Grader:
    """The grader of a mode: the organism's judge, or the model that `how` names; None guards coherence alone."""
    if how.judge == EXACT:
        return ExactReward(mode, guard)
    text = how.method == "text"
    return AskedReward(completer_of(how), mode or "correct", guard, "text" if text else "logprob", how.store)


def _carded(persona: str, text: str) -> list[dict[str, str]]:
    """The question under a card of the persona: always the same card for the same question."""
    card = organism.load_world().card(persona, random.Random(f"{persona}/{text}"))
    return [{"role": "system", "content": card}, {"role": "user", "content": text}]


def _direction_name(latent: int) -> str:
    return f"latent {latent}"
