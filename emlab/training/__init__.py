"""Fine-tuning: supervised, by LoRA or of all weights."""

from emlab.training.recipe import Recipe
from emlab.training.sft import FineTuned, assistant_loss, finetune

__all__ = ["FineTuned", "Recipe", "assistant_loss", "finetune"]
