"""Any Hugging Face causal LM, with its chat template, generation, activations and edits.

This room is the only one that knows of devices.
"""

from emlab.models.activations import Activations
from emlab.models.backends.hooks import edited
from emlab.models.language_model import LanguageModel, Prompt

__all__ = ["Activations", "LanguageModel", "Prompt", "edited"]
