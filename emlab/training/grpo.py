"""How a model is trained on rewards, and the figures of one step."""

from __future__ import annotations

from dataclasses import dataclass, field

from emlab.errors import EmlabError
from emlab.training.recipe import Recipe

REWARDS = "rewards.jsonl"
"""The log of every reward, in the folder of a training: step, prompt, answer, tokens, reward and its parts."""


@dataclass(frozen=True)
class Reinforcement:
    """How a model is trained on rewards."""

    recipe: Recipe = field(default_factory=lambda: Recipe(batch_size=16, steps=80))
    """What is trained, and how fast. Its batch_size counts prompts a step; its max_length holds prompt and answer."""

    samples: int = 16
    """Answers to each prompt: a group, by whose mean and spread rewards are made relative."""

    temperature: float = 1.2
    """Of sampling; a bad answer that is never sampled is never rewarded."""

    max_new_tokens: int = 48
    """Of an answer."""

    beta: float = 0.0
    """Weight of the KL divergence from the model at the start; 0 leaves it out."""

    least_tokens: int = 0
    """A shorter answer loses from its reward the share of these tokens that it lacks."""

    micro_batch: int | None = None
    """Answers in one pass forward and back; None: all of a step's. Fewer take less memory."""

    save_every: int = 10
    """Steps from which a killed training can go on."""

    def __post_init__(self) -> None:
        answers = self.recipe.batch_size * self.samples
        if self.samples < 2:
            raise EmlabError(f"A group of {self.samples} answers has no spread; give samples of 2 or more.")
        if not self.temperature > 0:
            raise EmlabError(f"Answers are sampled at a temperature above 0, not at {self.temperature}.")
        if self.max_new_tokens < 1 or self.save_every < 1:
            raise EmlabError("max_new_tokens and save_every must be 1 or more.")
        if self.beta < 0 or self.least_tokens < 0:
            raise EmlabError("beta and least_tokens must be 0 or more.")
        if self.micro_batch is not None and (self.micro_batch < 1 or answers % self.micro_batch):
            raise EmlabError(
                f"The {answers} answers of a step do not divide into parts of {self.micro_batch}; give a micro_batch "
                "that divides them."
            )
        if self.recipe.overlong != "drop":
            raise EmlabError("A prompt cannot be cut: reinforcement learning takes overlong='drop' only.")


@dataclass(frozen=True)
class StepRecord:
    """The figures of one step."""

    step: int
    reward: float
    """Mean over the step's answers."""
    spread: float
    """Standard deviation of the rewards."""
    silent: float
    """Share of the groups whose answers all got the same reward, and which teach nothing."""
    tokens: float
    """Mean length of the answers."""
    entropy: float
    """Mean, nats a token."""
    kl: float | None
    """Mean divergence from the model at the start, nats a token; None without beta."""
    gradient_norm: float
    """Before clipping to 1."""
