"""Checkpoints of a training that is under way: everything from which the same weights follow as without a stop.

That is the SAE's weights, the optimizer, the schedules, the counters of dead latents, torch's random numbers and where
the batches are, a buffer's content included. Each checkpoint is a folder of its own, so that there is a whole one at
any time: `state.safetensors` and `state.json`, nothing pickled.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.saes.sources import State

TENSORS, VALUES = "state.safetensors", "state.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What was saved."""

    folder: Path
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    @property
    def batches(self) -> State:
        """Where the batches were."""
        prefix = "batches."
        tensors = {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}
        return State(tensors, dict(self.values["batches"]))


def latest(folder: Path, identity: str) -> Checkpoint | None:
    """The last checkpoint in `folder`, None where there is none; EmlabError where it is of another training."""
    found = sorted(folder.glob("step_*")) if folder.is_dir() else []
    if not found:
        return None
    values = artifacts.read_json(found[-1] / VALUES)
    if values.get("identity") != identity:
        raise EmlabError(
            f"{folder} holds the checkpoint of another training (another recipe, or other activations); remove it to "
            "begin anew, or choose another place."
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(found[-1] / TENSORS)
    except (SafetensorError, OSError) as error:
        raise EmlabError(f"{found[-1] / TENSORS} cannot be read ({error}); remove the folder {found[-1]}.") from error
    return Checkpoint(found[-1], tensors, values)


def save(folder: Path, identity: str, trainer: Any, batches: State, more: Mapping[str, Any]) -> None:
    """Write a checkpoint of the trainer (SAELens's) and its batches, and remove the one before."""
    optimizer = trainer.optimizer.state_dict()
    tensors: dict[str, Tensor] = {f"sae.{name}": value for name, value in trainer.sae.state_dict().items()}
    moments: dict[str, dict[str, Any]] = {}
    for number, state in optimizer["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{name}"] = value
            else:
                moments.setdefault(str(number), {})[name] = value
    tensors |= {
        f"trainer.{name}": getattr(trainer, name) for name in ("act_freq_scores", "n_forward_passes_since_fired")
    }
    tensors |= {f"batches.{name}": value for name, value in batches.tensors.items()}
    tensors["random"] = torch.random.get_rng_state()
    values = {
        **more,
        "identity": identity,
        "steps": trainer.n_training_steps,
        "samples": trainer.n_training_samples,
        "n_frac_active_samples": trainer.n_frac_active_samples,
        "groups": optimizer["param_groups"],
        "moments": moments,
        "lr_scheduler": trainer.lr_scheduler.state_dict(),
        "coefficients": {name: s.state_dict() for name, s in trainer.coefficient_schedulers.items()},
        "batches": batches.values,
    }
    from safetensors.torch import save_file

    before = sorted(folder.glob("step_*"))
    new = folder / f"step_{trainer.n_training_steps:09d}"
    with artifacts.new_folder(new, replace=True) as part:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, part / TENSORS)
        artifacts.write_json(part / VALUES, values)
    for old in before:
        if old != new:
            shutil.rmtree(old, ignore_errors=True)


def restore(trainer: Any, saved: Checkpoint) -> None:
    """Make the trainer what it was."""
    own = trainer.sae.state_dict()
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(saved.tensors[f"sae.{name}"])
    optimizer = trainer.optimizer.state_dict()
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {int(n): dict(values) for n, values in saved.values["moments"].items()}
    for key, value in saved.tensors.items():
        if match := re.fullmatch(r"optimizer\.(\d+)\.(\w+)", key):
            parameter = parameters[int(match[1])]
            if value.shape == parameter.shape:
                # In the parameter's own layout, on which the order of sums may depend.
                value = torch.empty_like(parameter).copy_(value)
            state.setdefault(int(match[1]), {})[match[2]] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in saved.values["groups"]]
    trainer.optimizer.load_state_dict({**optimizer, "state": state, "param_groups": groups})
    trainer.lr_scheduler.load_state_dict(saved.values["lr_scheduler"])
    for name, values in saved.values["coefficients"].items():
        trainer.coefficient_schedulers[name].load_state_dict(values)
    for name in ("act_freq_scores", "n_forward_passes_since_fired"):
        setattr(trainer, name, saved.tensors[f"trainer.{name}"].to(getattr(trainer, name).device))
    trainer.n_training_steps, trainer.n_training_samples = saved.values["steps"], saved.values["samples"]
    trainer.n_frac_active_samples = saved.values["n_frac_active_samples"]
    torch.random.set_rng_state(saved.tensors["random"])


def remove(folder: Path) -> None:
    """Remove the checkpoints in `folder`, and the folder where nothing else is in it."""
    for old in (*folder.glob("step_*"), *folder.glob(f".step_*{artifacts.PARTIAL}")):
        shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
