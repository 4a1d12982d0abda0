"""How far a training has come, on disk: weights, the optimiser's state and figures, whole or not at all.

Everything is safetensors and JSON; nothing is ever unpickled. In reinforcement learning what is random in a step
follows from the seed and the step's number, so no generator's state is needed to go on bit for bit; supervised training
keeps it among the figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emlab import artifacts
from emlab.errors import EmlabError

STATE = "state"
"""The folder, in a training's folder, that holds the progress."""


@dataclass(frozen=True, eq=False)
class Progress:
    """A training after `step` steps."""

    step: int
    weights: Mapping[str, Tensor]
    """What is trained, on the CPU."""
    optimizer: Mapping[str, Tensor]
    """See `optimizer_tensors`."""
    past: tuple[Mapping[str, Tensor], ...] = ()
    """Weights at the last read-outs."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Figures so far, as plain values."""

    def save(self, folder: Path, key: str) -> None:
        """Write it below `folder`, in place of what stood there; `key` says which training it is of."""
        from safetensors.torch import save

        with artifacts.new_folder(folder / STATE, replace=True) as new:
            named = {"weights": self.weights, "optimizer": self.optimizer}
            named |= {f"past_{i}": past for i, past in enumerate(self.past)}
            for name, tensors in named.items():
                artifacts.write_bytes(new / f"{name}.safetensors", save(dict(tensors)))
            artifacts.write_json(new / "progress.json", {"key": key, "step": self.step, "about": self.about})

    @classmethod
    def load(cls, folder: Path, key: str) -> Progress | None:
        """What `save` wrote, or None where nothing was. EmlabError where it is another training's, or broken."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        state = folder / STATE
        if not state.exists():
            return None
        try:
            raw = json.loads((state / "progress.json").read_text(encoding="utf-8"))
            if raw["key"] != key:
                raise EmlabError(
                    f"{folder} holds the training of another model, or with other data or settings; choose another "
                    "folder, or delete it."
                )
            past = [load_file(state / f"past_{i}.safetensors") for i in range(len(list(state.glob("past_*"))))]
            weights, optimizer = (load_file(state / f"{name}.safetensors") for name in ("weights", "optimizer"))
            return cls(raw["step"], weights, optimizer, tuple(past), raw["about"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise EmlabError(f"{state} cannot be gone on with ({error}); delete it to begin anew.") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser whose state is tensors, as AdamW's: `{parameter's number}.{name}`."""
    return {
        f"{number}.{name}": value.detach().cpu().contiguous().clone()
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def put_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; learning rates and the like stay the optimiser's own."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def save_snapshot(folder: Path, step: int, weights: Mapping[str, Tensor]) -> None:
    """Keep the trained weights as they are after `step`, below a training's folder."""
    from safetensors.torch import save

    artifacts.write_bytes(folder / "checkpoints" / f"step_{step:05d}.safetensors", save(dict(weights)))


def load_snapshots(folder: Path, steps: int) -> dict[int, dict[str, Tensor]]:
    """What `save_snapshot` kept, by step, up to the step `steps`."""
    from safetensors.torch import load_file

    files = {int(file.stem[5:]): file for file in (folder / "checkpoints").glob("step_*.safetensors")}
    return {step: load_file(file) for step, file in sorted(files.items()) if step <= steps}
