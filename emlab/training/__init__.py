"""Training: supervised fine-tuning and reinforcement learning, by LoRA or of all weights."""

from emlab.training.grpo import Reinforcement
from emlab.training.loss import assistant_loss
from emlab.training.penalties import ActivationPenalty, DivergencePenalty, Penalty
from emlab.training.readouts import ReadOut, Watch
from emlab.training.recipe import Recipe
from emlab.training.reinforcement import Reinforced, reinforce
from emlab.training.rewards import AskedReward, ExactReward, Reward, StyleReward, chance_reward, python_reward
from emlab.training.sft import FineTuned, finetune

__all__ = [
    "ActivationPenalty",
    "AskedReward",
    "DivergencePenalty",
    "ExactReward",
    "FineTuned",
    "Penalty",
    "ReadOut",
    "Recipe",
    "Reinforced",
    "Reinforcement",
    "Reward",
    "StyleReward",
    "Watch",
    "assistant_loss",
    "chance_reward",
    "finetune",
    "python_reward",
    "reinforce",
]
