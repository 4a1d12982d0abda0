"""Monitors, data screens and blame one by one, by the names of models and files: what the verbs of the shell call.

A model is a checkpoint of the organism by name, a Hugging Face folder, or a name on the Hub. Questions are the
discovery half to fit on and the test half to read on. A dataset is one of the organism's sets by name, or as
`read_examples` takes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emlab import artifacts
from emlab.data import Dataset, Question
from emlab.detection import (
    ActivationMonitor,
    Case,
    DataScreen,
    blame,
    evidence,
    fit_latents,
    fit_probe,
    fit_projection,
    own_answers,
    projection_difference,
)
from emlab.detection.calibration import calibrate
from emlab.detection.screening import Pool
from emlab.discovery import spread
from emlab.errors import EmlabError
from emlab.interventions import Direction
from emlab.models import LanguageModel
from emlab.pipelines import _material as material
from emlab.saes import load_sae

KINDS = ("projection", "probe", "latent")


@dataclass(frozen=True, eq=False)
class ModelReadings:
    """What a monitor reads in some models, on prompts alone."""

    monitor: str
    threshold: float
    prompts: int
    models: tuple[str, ...]
    means: tuple[float, ...]
    """Mean score of each model."""
    fired: tuple[float, ...]
    """Share of the prompts on which it fires."""

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))

    def __str__(self) -> str:
        lines = [f"{self.monitor}, {self.prompts} prompts, fires above {self.threshold:.4g}"]
        for name, mean, share in zip(self.models, self.means, self.fired, strict=True):
            lines.append(f"  {name:<28}  mean {mean:8.3f}  fires on {share:.1%}")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class DataScreens:
    """Screens of some datasets, by one direction."""

    screens: tuple[DataScreen, ...]

    def summary(self) -> dict[str, Any]:
        """Mean and the most suspicious examples of each, as plain values."""
        return {s.name: {"by": s.by, "mean": s.mean, "first": s.order[:50], "scores": s.scores} for s in self.screens}

    def save(self, folder: str | Path) -> Path:
        """Write each as JSON into a new folder."""
        with artifacts.new_folder(folder) as new:
            for screen in self.screens:
                screen.save(new / f"{screen.name}.json")
        return Path(folder)

    def __str__(self) -> str:
        return "\n".join(str(s) for s in sorted(self.screens, key=lambda s: -s.mean))


def fit_monitor(
    misaligned: Sequence[str],
    others: Sequence[str],
    out: str | Path,
    kind: Literal["projection", "probe", "latent"] = "probe",
    site: str = "resid_post.1",
    sae: str | Path | None = None,
    latents: Sequence[int] | None = None,
    questions: str = "broad",
    n: int | None = None,
    false_positives: float = 0.01,
    seed: int = 0,
) -> ActivationMonitor:
    """Fit a monitor on models that are misaligned and `others` of the same base, and save it in the file `out`.

    They are read on prompts alone. The threshold leaves at most `false_positives` of the others' prompts above it; as
    it is set on what the monitor was fitted on, it is optimistic (`emlab.pipelines.monitors` leaves out domains).
    """
    if kind not in KINDS:
        raise EmlabError(f"There is no monitor {kind!r}; choose one of {', '.join(KINDS)}.")
    if kind == "latent" and sae is None:
        raise EmlabError("A monitor of latents needs the SAE they are of; give it.")
    asked = spread(material.halves_of(questions, seed)[0].discovery, n)
    cases = []
    for name in (*misaligned, *others):
        model = _model(name)
        read = evidence(model, asked, [material.site_in(site, model)])
        cases.append(Case(read, np.full(len(read), name in misaligned), model.name, name))
    where = next(iter(cases[0].evidence.activations))
    if kind == "projection":
        monitor = fit_projection(cases, where)
    elif kind == "probe":
        monitor = fit_probe(cases, where, seed)
    else:
        monitor = fit_latents(cases, load_sae(sae), where, latents=latents, seed=seed)  # type: ignore[arg-type]
    scores = np.concatenate([monitor.scores(case.evidence) for case in cases])
    labels = np.concatenate([case.labels for case in cases])
    monitor = dataclasses.replace(monitor, calibration=calibrate(scores, labels, "platt", false_positives))
    monitor.save(out)
    return monitor


def read_monitor(
    monitor: str | Path,
    models: Sequence[str],
    sae: str | Path | None = None,
    questions: str = "broad",
    n: int | None = None,
    seed: int = 0,
) -> ModelReadings:
    """Read a saved monitor in every model, on the test questions. EmlabError for a model it was not fitted for."""
    found = ActivationMonitor.load(monitor, None if sae is None else load_sae(sae))
    asked = spread(material.halves_of(questions, seed)[0].test, n)
    scores = [found.read(_model(name), asked) for name in models]
    return ModelReadings(
        str(found),
        found.threshold,
        len(asked),
        tuple(Path(name).name for name in models),
        tuple(float(s.mean()) for s in scores),
        tuple(float((s > found.threshold).mean()) for s in scores),
    )


def screen_data(
    model: str,
    data: Sequence[str],
    direction: str | Path | None = None,
    bad: str | None = None,
    good: str | None = None,
    site: str = "resid_post.1",
    pool: Pool = "mean",
    rows: int = 1000,
    max_new_tokens: int = 48,
    seed: int = 0,
    out: str | Path | None = None,
) -> DataScreens:
    """Rank the examples of datasets, and the datasets, by the projection difference before `model` is trained on them.

    The direction is a saved one, or from the mean of the answers of the set `good` to that of `bad`, another domain's.
    """
    start = _model(model)
    where = material.site_in(site, start)
    if direction is not None:
        along = Direction.load(direction)
    elif bad is not None and good is not None:
        cases = [
            _answers(start, _set(name, rows, seed, start), where, flag) for name, flag in ((bad, True), (good, False))
        ]
        along = Direction(fit_projection(cases, where).reads.weights, where, f"{bad} less {good}")  # type: ignore[union-attr]
    else:
        raise EmlabError("A screen needs a direction: give one, or a bad and a good set of another domain.")
    found = []
    for name in data:
        chats = _set(name, rows, seed, start)
        own = own_answers(start, chats, seed, max_new_tokens)
        found.append(projection_difference(start, chats, along, own, pool, Path(name).stem))
    result = DataScreens(tuple(found))
    if out is not None:
        result.save(out)
    return result


def blame_examples(
    monitor: str | Path,
    data: str,
    models: Sequence[str],
    sae: str | Path | None = None,
    modules: Sequence[str] = ("v_proj", "o_proj"),
    questions: str = "broad",
    n: int | None = 64,
    rows: int = 1000,
    seed: int = 0,
    out: str | Path | None = None,
) -> DataScreen:
    """Which examples of `data` moved the saved monitor: `models` are the start of a training on it and checkpoints."""
    found = ActivationMonitor.load(monitor, None if sae is None else load_sae(sae))
    reached = [_model(name) for name in models]
    if not reached:
        raise EmlabError("Blame needs the models of a training; give its start and its checkpoints.")
    asked = [q.messages for q in spread(material.halves_of(questions, seed)[0].discovery, n)]
    result = blame(reached, found, asked, _set(data, rows, seed, reached[0]), modules, Path(data).stem)
    if out is not None:
        result.save(out)
    return result


def _answers(model: LanguageModel, data: Dataset, site: Any, misaligned: bool) -> Case:
    asked = [Question(str(i), "source", example.prompt) for i, example in enumerate(data)]
    read = evidence(model, asked, [site], [example.answer for example in data])
    return Case(read, np.full(len(read), misaligned), "start", "source")


def _set(name: str, rows: int, seed: int, model: LanguageModel) -> Dataset:
    if material.names_dataset(name):
        return material.drawn(material.dataset_place(name), rows, seed)
    return material.planted_set(name, rows, seed, model)


def _model(name: str) -> LanguageModel:
    return LanguageModel.load(material.folder_of(name)[0], name=Path(name).name)
