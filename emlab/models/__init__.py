"""Any Hugging Face causal LM, with its chat template, generation, activations and edits.

This room is the only one that knows of devices.
"""

from emlab.models.activations import Activations
from emlab.models.backends.hooks import edited
from emlab.models.backends.ndif import remote_model
from emlab.models.baking import ablate_everywhere, bake
from emlab.models.completion import Completer, Completion, Request
from emlab.models.editing import edit
from emlab.models.endpoint import Endpoint, Estimate
from emlab.models.language_model import LanguageModel, Prompt
from emlab.models.local import LocalCompleter
from emlab.models.unembedding import direct_logits
from emlab.models.wrapping import wrap

__all__ = [
    "Activations",
    "Completer",
    "Completion",
    "Endpoint",
    "Estimate",
    "LanguageModel",
    "LocalCompleter",
    "Prompt",
    "Request",
    "ablate_everywhere",
    "bake",
    "direct_logits",
    "edit",
    "edited",
    "remote_model",
    "wrap",
]
