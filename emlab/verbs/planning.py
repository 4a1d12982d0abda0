"""What a run would take, and what this machine has: said before anything is begun."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import psutil

from emlab import artifacts, config
from emlab.errors import EmlabError, install
from emlab.experiments.material.disk import size
from emlab.experiments.material.models import folder_of
from emlab.experiments.registry import EXPERIMENTS
from emlab.models.loading import pick_device
from emlab.notebook import Shown
from emlab.provenance import machine, versions
from emlab.shipped import located, shipped_files
from emlab.verbs.run_folders import list_runs

OPTIONAL: Mapping[str, tuple[str, str]] = {
    "transformer_lens": ("backends", "edits in models of TransformerLens"),
    "nnsight": ("backends", "edits in models of nnsight, and on NDIF's servers"),
    "bitsandbytes": ("quantize", "weights in 4 or 8 bits"),
    "trl": ("trl", "reinforcement learning"),
    "gguf": ("real", "models in gguf files"),
    "inspect_ai": ("inspect", "questions, judges and scores as tasks of Inspect"),
    "triton": ("", "the fast path of TopK SAEs on CUDA; it comes with torch for CUDA"),
}
"""Packages that emlab does without: the extra that installs each, and what it is for."""

COPIES = 3
"""Whole models that a run holds at a time, about: the aligned model and two merged fine-tunes."""


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """What `emlab run` would do with a config."""

    config: Path
    pipeline: str
    state: str
    """Whether a run of this name is there, and how far it is."""
    stages: Mapping[str, float | None]
    """Each stage, or part, in order, and the seconds that it took where it was measured."""
    seconds: float | None
    """All of it, where it was measured; None where nothing is known."""
    measured_on: str
    """The machine that it was measured on; empty where it was not."""
    needs: Mapping[str, tuple[float, float]]
    """"memory" and "disk": the bytes that it takes, about, and those that are free."""

    @property
    def holds(self) -> bool:
        """Whether it fits."""
        return all(needed <= free for needed, free in self.needs.values())

    def __str__(self) -> str:
        lines = [f"{self.config}: {self.pipeline}. {self.state}"]
        for what, (needed, free) in self.needs.items():
            short = "" if needed <= free else ". That is too little"
            lines.append(f"It takes about {size(int(needed))} of {what}, and {size(int(free))} are free{short}.")
        if self.seconds is None:
            lines.append("How long it takes was not measured.")
        else:
            lines.append(f"It took {self.seconds / 60:.0f} minutes on {self.measured_on}, stage by stage:")
        lines += [f"  {name}" if took is None else f"  {took:6.0f} s  {name}" for name, took in self.stages.items()]
        return "\n".join(lines)


@dataclass(frozen=True, repr=False)
class Checkup(Shown):
    """What this machine has, and what emlab can do on it."""

    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    device: str
    """That is taken where none is named."""
    memory: int
    """Bytes free."""
    disk: int
    """Bytes free here."""
    cache: Path
    """Where fetched models and datasets go."""
    missing: Mapping[str, str]
    """Optional packages that are not installed, and what each is for."""
    plan: Plan | None = None
    """Of the config that was asked about."""

    @property
    def holds(self) -> bool:
        """Whether the config fits this machine; True where none was asked about."""
        return self.plan is None or self.plan.holds

    def __str__(self) -> str:
        here = self.machine
        lines = [
            f"{here['cpu']}, {here['cores']} cores, {here['gpu'] or 'no GPU'}, {here['system']}",
            f"models run on {self.device} by default",
            f"{size(self.memory)} of memory and {size(self.disk)} on disk are free",
            ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            f"fetched models and datasets are kept in {self.cache}",
        ]
        lines += [f"not installed: {name}, for {what}" for name, what in self.missing.items()]
        return "\n".join([*lines, *([str(self.plan)] if self.plan is not None else [])])


def plan(file: str | Path, overrides: Sequence[str] = (), runs: str | Path = "runs") -> Plan:
    """What `emlab run` would do with a config; nothing is begun. EmlabError where the config is wrong.

    Times are those of the kept result of the experiment that ships under the config's name (`docs/NAME.json`, in a
    checkout alone), of a suite those that its config tells.

    Args:
        file: The config.
        overrides: As behind `emlab run`.
        runs: Where the run's folder would go.
    """
    place = located(file)
    pipeline = config.pipeline_of(place, overrides)
    settings = config.load(place, overrides, EXPERIMENTS.get(pipeline).config)
    kept = shipped_files() / "docs" / f"{settings.name}.json"
    told = artifacts.read_json(kept) if kept.is_file() else {}
    stages: dict[str, float | None] = dict(told.get("stage_seconds", {}))
    seconds, measured_on = told.get("wall_seconds"), _machine(told.get("provenance", {}).get("machine"))
    if parts := getattr(settings, "parts", ()):
        stages = {part.config.stem: 60 * part.minutes for part in parts}
        seconds, measured_on = (
            60 * sum(part.minutes for part in parts),
            measured_on or "the machine that its config tells",
        )
    return Plan(Path(file), pipeline, _state(settings.name, runs), stages, seconds, measured_on, _needs(settings, runs))


def doctor(config: str | Path | None = None, overrides: Sequence[str] = ()) -> Checkup:
    """What this machine has; with a config, whether that fits it, and how long it takes.

    Args:
        config: A config of `emlab run`.
        overrides: As behind `emlab run`.
    """
    import torch  # noqa: F401  # `machine` tells of the accelerator that torch sees

    missing = {
        name: f"{what} ({install(extra)})" if extra else what
        for name, (extra, what) in OPTIONAL.items()
        if importlib.util.find_spec(name) is None
    }
    return Checkup(
        machine(),
        versions(),
        str(pick_device()),
        psutil.virtual_memory().available,
        shutil.disk_usage(Path.cwd()).free,
        platformdirs.user_cache_path("emlab"),
        missing,
        None if config is None else plan(config, overrides),
    )


def _state(name: str, runs: str | Path) -> str:
    """In a sentence, what there is of the run already."""
    own = [run for run in list_runs(runs) if run.folder.name.rpartition("-")[0].rpartition("-")[0] == name]
    if not own:
        return f"No run of the name {name} is in {runs}."
    done = "finished" if own[0].finished else f"not finished, with {len(own[0].stages)} stages"
    return (
        f"The latest of the name {name} is {own[0].folder}, {done}; it goes on, or is shown, where its config is this."
    )


def _needs(settings: Any, runs: str | Path) -> dict[str, tuple[float, float]]:
    """Memory and disk: of a suite what its config says; else of so many copies of the model's weights."""
    memory, disk = 1e9 * getattr(settings, "memory", 0), 1e9 * getattr(settings, "disk", 0)
    model = getattr(settings, "model", None)
    if not memory and isinstance(model, str):
        try:
            folder, _ = folder_of(model)
        except EmlabError:
            return {}
        memory = COPIES * sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    there = artifacts.place(runs).absolute()
    while not there.exists():
        there = there.parent
    needs = {"memory": (memory, psutil.virtual_memory().available), "disk": (disk, shutil.disk_usage(there).free)}
    return {what: (needed, float(free)) for what, (needed, free) in needs.items() if needed}


def _machine(told: Mapping[str, Any] | None) -> str:
    return f"{told['cpu']}, {told['cores']} cores{', ' + told['gpu'] if told['gpu'] else ''}" if told else ""
