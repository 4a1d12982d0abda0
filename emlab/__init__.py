"""emlab: cause emergent misalignment, find the latent that carries it, prove that it does, watch for it, remove it.

Everything public can be reached from here (`emlab.LanguageModel`, `emlab.organism`) and is imported when it is first
used, so that `import emlab` costs nothing. A type checker sees more when a name is imported from its room:
`from emlab.models import LanguageModel`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_ROOM_OF = {
    "Ablate": "emlab.interventions",
    "ActivationMonitor": "emlab.detection",
    "Clamp": "emlab.interventions",
    "Dataset": "emlab.data",
    "Direction": "emlab.interventions",
    "EmlabError": "emlab.errors",
    "Endpoint": "emlab.models",
    "Example": "emlab.data",
    "LanguageModel": "emlab.models",
    "Question": "emlab.data",
    "QuestionSet": "emlab.data",
    "Recipe": "emlab.training",
    "Reinforcement": "emlab.training",
    "Replace": "emlab.interventions",
    "Rollouts": "emlab.evaluation",
    "Run": "emlab.runs",
    "Score": "emlab.evaluation",
    "Site": "emlab.sites",
    "Steer": "emlab.interventions",
    "ablate_everywhere": "emlab.models",
    "ablate_encoded": "emlab.interventions",
    "bake": "emlab.models",
    "blame": "emlab.detection",
    "causal_screen": "emlab.discovery",
    "check_sae": "emlab.saes",
    "clamp_latents": "emlab.discovery",
    "compare": "emlab.evaluation",
    "decoder_direction": "emlab.discovery",
    "detect": "emlab.detection",
    "edit": "emlab.models",
    "effect_of": "emlab.discovery",
    "fidelity": "emlab.saes",
    "finetune": "emlab.training",
    "fit_latents": "emlab.detection",
    "fit_probe": "emlab.detection",
    "fit_projection": "emlab.detection",
    "fit_sae": "emlab.saes",
    "interpret": "emlab.discovery",
    "latent_shift": "emlab.discovery",
    "latent_shifts": "emlab.discovery",
    "load_sae": "emlab.saes",
    "mean_difference": "emlab.discovery",
    "random_directions": "emlab.interventions",
    "projection_difference": "emlab.detection",
    "profile_questions": "emlab.data",
    "read_chat_jsonl": "emlab.data",
    "read_examples": "emlab.data",
    "read_questions": "emlab.data",
    "realign": "emlab.mitigation",
    "reinforce": "emlab.training",
    "remote_model": "emlab.models",
    "sample": "emlab.evaluation",
    "save_sae": "emlab.saes",
    "score": "emlab.evaluation",
    "steer_screen": "emlab.discovery",
    "train_sae": "emlab.saes",
    "watch": "emlab.detection",
    "wrap": "emlab.models",
}
"""Each public name and the module that holds it."""

_ROOMS = (
    "artifacts",
    "config",
    "data",
    "detection",
    "discovery",
    "errors",
    "evaluation",
    "experiments",
    "interventions",
    "mitigation",
    "models",
    "organism",
    "reporting",
    "runs",
    "saes",
    "sites",
    "store",
    "training",
    "verbs",
)

__all__ = [*_ROOM_OF, *_ROOMS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        value = getattr(importlib.import_module(_ROOM_OF[name]), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"emlab.{name}")
    else:
        raise AttributeError(f"module 'emlab' has no attribute {name!r}")
    globals()[name] = value  # found once, it stays
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
