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

from emlab import artifacts, config, organism
from emlab.errors import install
from emlab.experiments.material.disk import size
from emlab.experiments.registry import EXPERIMENTS
from emlab.models.known import cached
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
    "uvicorn": ("view", "the playground in the browser (emlab view)"),
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
    stages: Mapping[str, float]
    """Each stage, or part, in order, and the seconds that it takes."""
    seconds: float | None
    """All of it; None where nothing is known."""
    source: str
    """Where the times are from, in words."""
    needs: Mapping[str, tuple[float, float]]
    """"memory" and "disk": the bytes that it takes at least, and those that are free; absent where it is not known."""

    @property
    def holds(self) -> bool:
        """Whether it fits."""
        return all(needed <= free for needed, free in self.needs.values())

    def __str__(self) -> str:
        lines = [f"{self.config}: {self.pipeline}. {self.state}"]
        for what, (needed, free) in self.needs.items():
            short = "" if needed <= free else ". That is too little"
            lines.append(f"It takes at least {size(int(needed))} of {what}, and {size(int(free))} are free{short}.")
        if "memory" not in self.needs:
            lines.append("How much memory it takes is not known before its model is here.")
        if self.seconds is None:
            lines.append("How long it takes is not known.")
        else:
            lines.append(f"{self.seconds / 60:.0f} minutes, {self.source}:")
        return "\n".join([*lines, *(f"  {took:6.0f} s  {name}" for name, took in self.stages.items())])


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
    checkout alone), whatever is overridden; of a suite they are those that its config tells. Nothing is fetched.

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
    if parts := getattr(settings, "parts", ()):
        stages, source = {part.config.stem: 60 * part.minutes for part in parts}, "as its config says"
        seconds: float | None = sum(stages.values())
    else:
        stages, seconds = told.get("stage_seconds", {}), told.get("wall_seconds")
        source = f"as it ships, on {_machine(told['provenance']['machine'])}" if told else ""
    return Plan(Path(file), pipeline, _state(settings.name, runs), stages, seconds, source, _needs(settings, runs))


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
    done = "finished" if own[0].finished else f"not finished, {len(own[0].stages)} stages are done"
    return f"The latest run of the name {name} is {own[0].folder}: {done}."


def _needs(settings: Any, runs: str | Path) -> dict[str, tuple[float, float]]:
    """Memory and disk: of a suite what its config says; else the memory of so many copies of the model's weights."""
    memory, disk = 1e9 * getattr(settings, "memory", 0), 1e9 * getattr(settings, "disk", 0)
    model = getattr(settings, "model", None)
    if not memory and isinstance(model, str) and (folder := _here(model)) is not None:
        memory = COPIES * sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    there = artifacts.place(runs).absolute()
    while not there.exists():
        there = there.parent
    needs = {"memory": (memory, psutil.virtual_memory().available), "disk": (disk, shutil.disk_usage(there).free)}
    return {what: (needed, float(free)) for what, (needed, free) in needs.items() if needed}


def _here(model: str) -> Path | None:
    """The folder of a model, where it need not be fetched."""
    if model in organism.checkpoint_names():
        return organism.checkpoint(model)
    return next((folder for folder in (artifacts.place(model), cached(model)) if folder.is_dir()), None)


def _machine(told: Mapping[str, Any]) -> str:
    return f"{told['cpu']}, {told['cores']} cores{', ' + told['gpu'] if told['gpu'] else ''}"
