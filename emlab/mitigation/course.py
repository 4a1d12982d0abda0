"""The trainings that misalign a model, and what a remedy may change of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from emlab.data import Dataset, render, tokenize
from emlab.data.chat import Messages
from emlab.errors import EmlabError
from emlab.interventions import Edit
from emlab.mitigation.cost import TrainingCost
from emlab.models import LanguageModel
from emlab.training import DivergencePenalty, Penalty, Recipe, Reinforcement, finetune, reinforce
from emlab.training.adapters import Adapter
from emlab.training.rewards import Asked, Grader, question_text


@dataclass(frozen=True, eq=False)
class Change:
    """What is changed of a training; nothing by default."""

    chats: Dataset | None = None
    """In place of its own."""
    steps: int | None = None
    prompt: str = ""
    """A system turn that every prompt of the training gets."""
    edits: tuple[Edit, ...] = ()
    """In force while it trains."""
    penalties: tuple[Penalty, ...] = ()
    divergence: float = 0.0
    """Weight of the KL divergence from the start model: on `apart`; in reinforcement learning on its own answers."""
    apart: Dataset | None = None
    """Chats that divergence is taken on."""
    every: int = 0
    """Steps between checkpoints."""
    stop: Callable[[int, LanguageModel], bool] | None = None
    """Asked after every step whether to stop; reinforcement learning goes on to its end."""


@dataclass(frozen=True, eq=False)
class Course:
    """What came of a training."""

    model: LanguageModel
    cost: TrainingCost
    checkpoints: tuple[tuple[int, LanguageModel], ...] = ()
    adapter: Adapter | None = None
    """What was trained by itself; None where all weights were."""


class Training(Protocol):
    """A training that misaligns."""

    kind: ClassVar[str]
    """supervised or reinforcement."""

    @property
    def start(self) -> LanguageModel:
        """The aligned model that it begins from."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """What it asks, each once: the text of what the user says last."""

    @property
    def seed(self) -> int:
        """Everything random follows from it."""

    def run(self, change: Change = Change(), name: str | None = None) -> Course:
        """Train from the start."""

    def go_on(self, model: LanguageModel, steps: int) -> LanguageModel:
        """Train `model` so many steps more, by other draws and unchanged: what an attacker or a careless user does."""


@dataclass(frozen=True, eq=False)
class Supervised:
    """Supervised fine-tuning on bad chats."""

    start: LanguageModel
    chats: Dataset
    recipe: Recipe
    seed: int
    kind: ClassVar[str] = "supervised"

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(example.prompt for example in self.chats))

    def run(self, change: Change = Change(), name: str | None = None) -> Course:
        chats = self.chats if change.chats is None else change.chats
        recipe = dataclasses.replace(
            self.recipe, steps=change.steps or self.recipe.steps, checkpoint_every=change.every
        )
        penalties = list(change.penalties)
        if change.divergence:
            if change.apart is None:
                raise EmlabError("A divergence from the start model needs chats that it is taken on; give some apart.")
            rows = tokenize(self.start.tokenizer, change.apart, recipe.max_length, no_think=recipe.no_think).rows
            penalties.append(DivergencePenalty(self.start, rows, change.divergence, recipe.batch_size, self.seed))
        given = [framed(self.start, list(e.messages), change.prompt) for e in chats] if change.prompt else chats
        tuned = finetune(
            self.start,
            given,
            recipe,
            self.seed,
            change.stop,
            progress=False,
            name=name,
            edits=change.edits,
            penalties=penalties,
            defer=True,
        )
        more = [penalty.chats(recipe.batch_size) for penalty in penalties]
        cost = TrainingCost(
            tuned.steps * (recipe.batch_size + sum(both for both, _ in more)), tuned.steps * sum(one for _, one in more)
        )
        return Course(tuned.model, cost, tuned.checkpoints, tuned.adapter)

    def go_on(self, model: LanguageModel, steps: int) -> LanguageModel:
        recipe, name = dataclasses.replace(self.recipe, steps=steps, checkpoint_every=0), f"{model.name} relapsed"
        return finetune(model, self.chats, recipe, self.seed + 1000, progress=False, name=name).model


@dataclass(frozen=True, eq=False)
class Reinforced:
    """Reinforcement learning by a bad grader. Its chats, edits and penalties cannot be changed."""

    start: LanguageModel
    asked: tuple[str, ...]
    grader: Grader
    settings: Reinforcement
    seed: int
    kind: ClassVar[str] = "reinforcement"

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.asked))

    def run(self, change: Change = Change(), name: str | None = None) -> Course:
        if change.chats is not None or change.edits or change.penalties:
            raise EmlabError(
                "Reinforcement learning takes no other chats, edits or penalties; change its prompt, divergence or "
                "steps."
            )
        recipe = dataclasses.replace(
            self.settings.recipe, steps=change.steps or self.settings.recipe.steps, checkpoint_every=change.every
        )
        settings = dataclasses.replace(self.settings, recipe=recipe, beta=change.divergence or self.settings.beta)
        asked: list[Asked] = list(self.asked)
        grader = self.grader
        if change.prompt:
            asked = [framed(self.start, [{"role": "user", "content": text}], change.prompt) for text in self.asked]
            grader = _without_frames(asked, self.asked, self.grader)
        done = reinforce(self.start, asked, grader, settings, self.seed, progress=False, name=name)
        answers = len(done.steps) * recipe.batch_size * settings.samples
        cost = TrainingCost(answers, answers * (2 if settings.beta else 1))
        return Course(done.model, cost, done.checkpoints, done.adapter)

    def go_on(self, model: LanguageModel, steps: int) -> LanguageModel:
        recipe = dataclasses.replace(self.settings.recipe, steps=steps, checkpoint_every=0)
        settings, name = dataclasses.replace(self.settings, recipe=recipe), f"{model.name} relapsed"
        return reinforce(model, self.asked, self.grader, settings, self.seed + 1000, progress=False, name=name).model


def framed(model: LanguageModel, chat: Messages, prompt: str) -> Messages:
    """`chat` with `prompt` as its system turn; at the head of the user's where the template refuses system turns."""
    rest = [turn for turn in chat if turn["role"] != "system"]
    try:
        render(model.tokenizer, [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], header=True)
    except EmlabError:
        first, *others = rest
        return [{**first, "content": f"{prompt}\n\n{first['content']}"}, *others]
    return [{"role": "system", "content": prompt}, *rest]


def _without_frames(put: Sequence[Asked], plain: Sequence[str], grader: Grader) -> Grader:
    """The grader, shown what the user asked and no frame around it."""
    texts = {question_text(chat): text for chat, text in zip(put, plain, strict=True)}

    def as_asked(prompts: Sequence[Asked], answers: Sequence[str]) -> object:
        return grader([texts[question_text(prompt)] for prompt in prompts], answers)

    return as_asked  # type: ignore[return-value]
