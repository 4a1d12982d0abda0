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
from emlab.data import Question
from emlab.detection import (
    ActivationMonitor,
    Auroc,
    DataScreen,
    LabelledEvidence,
    Latents,
    auroc,
    blame,
    evidence,
    fit_latents,
    fit_probe,
    fit_projection,
    own_answers,
    projection_difference,
)
from emlab.detection.calibration import calibrate, check_share
from emlab.detection.evidence import labels_of
from emlab.detection.screening import Pool, check_pool
from emlab.discovery import spread
from emlab.discovery.selection import check_same_tokens
from emlab.errors import EmlabError
from emlab.experiments.data_screening.stages import answers_read
from emlab.experiments.material.fidelity import ask_fidelity
from emlab.experiments.material.models import folder_of, model_named, site_in
from emlab.experiments.material.questions import halves_of
from emlab.experiments.material.saes import sae_site_in
from emlab.experiments.material.sets import fine_tuning_set
from emlab.interventions import Direction
from emlab.models import LanguageModel
from emlab.saes import load_sae
from emlab.verbs.keeping import check_new, kept

KINDS = ("projection", "probe", "latent")
SITE = "resid_post.1"


@dataclass(frozen=True, eq=False)
class ModelReadings:
    """What a monitor reads in some models, on prompts alone."""

    monitor: str
    threshold: float
    prompts: int
    """How many each model was asked."""
    models: tuple[str, ...]
    means: tuple[float, ...]
    """Mean score of each model."""
    fired: tuple[float, ...]
    """Share of the prompts on which it fires."""

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))

    def __str__(self) -> str:
        lines = [f"{self.monitor}; {self.prompts} prompts a model"]
        for name, mean, share in zip(self.models, self.means, self.fired, strict=True):
            lines.append(f"  {name:<28}  mean {mean:8.3f}  fires on {share:.1%}")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class FittedMonitor:
    """A monitor, and what it is worth on the very models and prompts that it was fitted on, which flatters it."""

    monitor: ActivationMonitor
    readings: ModelReadings
    """Of those models, the misaligned ones first."""
    misaligned: int
    """How many of them are misaligned."""
    auroc: Auroc
    """Of prompts of misaligned models against prompts of others; the interval is over models and questions."""
    recall: float
    """Share of the misaligned models' prompts on which it fires."""
    false_positives: float
    """Share of the others' prompts on which it fires."""

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        whole = {**vars(self), **self.readings.summary(), "monitor": self.monitor.name, "site": str(self.monitor.site)}
        del whole["readings"]
        return whole

    def __str__(self) -> str:
        others = len(self.readings.models) - self.misaligned
        return (
            f"{self.readings}\n"
            f"on what it was fitted on ({self.misaligned} misaligned, {others} not), which flatters it:\n"
            f"  {self.auroc}, fires on {self.recall:.1%} of the prompts of misaligned models and on "
            f"{self.false_positives:.1%} of the others'"
        )


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
    site: str | None = None,
    sae: str | Path | None = None,
    latents: Sequence[int] | None = None,
    questions: str = "broad",
    n: int | None = None,
    false_positives: float = 0.01,
    seed: int = 0,
) -> FittedMonitor:
    """Fit a monitor on models that are misaligned and `others` of the same base, and save it in the new file `out`.

    They are read on prompts alone, at `site`: by default where the SAE was trained, and without one at resid_post.1.
    The threshold leaves at most `false_positives` of the others' prompts above it; as it is set on what the monitor
    was fitted on, it is optimistic (`emlab.experiments.monitors.run` leaves out domains).
    """
    if kind not in KINDS:
        raise EmlabError(f"There is no monitor {kind!r}; choose one of {', '.join(KINDS)}.")
    if kind == "latent" and sae is None:
        raise EmlabError("A monitor of latents needs the SAE they are of; give it.")
    if kind != "latent" and (sae is not None or latents is not None):
        raise EmlabError(f"A {kind} reads no SAE and no latents; leave them out, or ask for the kind latent.")
    if not misaligned or not others:
        raise EmlabError("A monitor is fitted on misaligned models and on others; give some of both.")
    check_share(false_positives)
    artifacts.check_new(out)
    names = (*misaligned, *others)
    places = [folder_of(name)[0].resolve() for name in names]
    if twice := [name for name, place in zip(names, places, strict=True) if places.count(place) > 1]:
        raise EmlabError(f"The model {twice[0]} is given twice; name it once, as misaligned or among the others.")
    autoencoder = None if sae is None else load_sae(sae)
    asked = spread(halves_of(questions, seed)[0].discovery, n)
    prompts = [question.messages for question in asked]
    cases: list[LabelledEvidence] = []
    for name in names:
        model = model_named(name)
        if not cases:
            where = site_in(site or SITE, model) if autoencoder is None else sae_site_in(site, autoencoder, model)
            first = LanguageModel(None, model.tokenizer, model.name)  # without its weights, which the next may need
        check_same_tokens(first, [model], prompts, None)
        if autoencoder is not None:
            ask_fidelity(autoencoder, sae, where, [model], prompts)
        read = evidence(model, asked, [site_in(str(where), model)])
        cases.append(LabelledEvidence(read, np.full(len(read), name in misaligned), model.name, name))
    if autoencoder is not None:
        monitor = fit_latents(cases, autoencoder, where, latents=latents, seed=seed)
    else:
        monitor = fit_projection(cases, where) if kind == "projection" else fit_probe(cases, where, seed)
    each = [monitor.scores(case.evidence) for case in cases]
    scores, labels = np.concatenate(each), labels_of(cases)
    monitor = dataclasses.replace(monitor, calibration=calibrate(scores, labels, "platt", false_positives))
    monitor.save(out)
    fired = scores > monitor.threshold
    return FittedMonitor(
        monitor,
        _readings(monitor, names, each),
        len(misaligned),
        auroc(scores, labels, np.repeat(names, len(asked)).tolist(), [q.cluster or q.id for q in asked] * len(cases)),
        float(fired[labels].mean()),
        float(fired[~labels].mean()),
    )


def read_monitor(
    monitor: str | Path,
    models: Sequence[str],
    sae: str | Path | None = None,
    questions: str = "broad",
    n: int | None = None,
    seed: int = 0,
) -> ModelReadings:
    """Read a saved monitor in every model, on the test questions. EmlabError for a model it was not fitted for."""
    found = _saved(monitor, sae)
    asked: Sequence[Question] = spread(halves_of(questions, seed)[0].test, n)
    scores = []
    for model in map(model_named, models):
        found.check(model)
        if isinstance(found.reads, Latents):
            ask_fidelity(found.reads.sae, sae, found.site, [model], [question.messages for question in asked])
        scores.append(found.read(model, asked))
    return _readings(found, models, scores)


def screen_data(
    model: str,
    data: Sequence[str],
    direction: str | Path | None = None,
    named: str | None = None,
    bad: str | None = None,
    good: str | None = None,
    site: str | None = None,
    pool: Pool = "mean",
    rows: int = 1000,
    max_new_tokens: int = 48,
    seed: int = 0,
    out: str | Path | None = None,
) -> DataScreens:
    """Rank the examples of datasets, and the datasets, by the projection difference before `model` is trained on them.

    The direction is a saved one, of a file of several that which is `named` (`Direction.load`); or from the mean of the
    answers of the set `good` to that of `bad`, another domain's, at `site`, by default resid_post.1.
    """
    check_pool(pool)
    called = [Path(name).stem for name in data]
    if twice := [name for name in called if called.count(name) > 1]:
        raise EmlabError(f"Two of the datasets are called {twice[0]}; give each a name of its own.")
    if direction is None and named is not None:
        raise EmlabError(f"The name {named!r} is that of one in a file of directions; give the file.")
    if direction is None and (bad is None or good is None):
        raise EmlabError("A screen needs a direction: give one, or a bad and a good set of another domain.")
    if direction is not None and (bad is not None or good is not None):
        raise EmlabError("A screen has one direction: give a saved one, or a bad and a good set, and not both.")
    if direction is not None and site is not None:
        raise EmlabError(f"The direction in {direction} has a site of its own; leave out the site {site}.")
    check_new(out)
    along = None if direction is None else Direction.load(direction, named)
    start = model_named(model)
    where = site_in((site or SITE) if along is None else str(along.site), start)
    if along is None:
        cases = [
            answers_read(start, fine_tuning_set(str(name), rows, seed, start), [where], misaligned, "source")
            for name, misaligned in ((bad, True), (good, False))
        ]
        along = Direction(fit_projection(cases, where).reads.weights, where, f"{bad} less {good}")  # type: ignore[union-attr]
    found = []
    for name, title in zip(data, called, strict=True):
        chats = fine_tuning_set(name, rows, seed, start)
        own = own_answers(start, chats, seed, max_new_tokens)
        found.append(projection_difference(start, chats, along, own, pool, title))
    result = DataScreens(tuple(found))
    return kept(result, out)


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
    if not models:
        raise EmlabError("Blame needs the models of a training; give its start and its checkpoints.")
    check_new(out)
    found = _saved(monitor, sae)
    reached = [model_named(name) for name in models]
    asked = [q.messages for q in spread(halves_of(questions, seed)[0].discovery, n)]
    examples = fine_tuning_set(data, rows, seed, reached[0])
    result = blame(reached, found, asked, examples, modules, Path(data).stem)
    return kept(result, out)


def _saved(path: str | Path, sae: str | Path | None) -> ActivationMonitor:
    """The monitor in a file, with the SAE that it reads if it reads one."""
    found = ActivationMonitor.load(path, None if sae is None else load_sae(sae))
    if sae is not None and not isinstance(found.reads, Latents):
        raise EmlabError(f"The monitor {path} is a {found.name} and reads no SAE; leave out {sae}.")
    return found


def _readings(monitor: ActivationMonitor, models: Sequence[str], scores: Sequence[np.ndarray]) -> ModelReadings:
    return ModelReadings(
        str(monitor),
        monitor.threshold,
        len(scores[0]),
        tuple(Path(name).name for name in models),
        tuple(float(s.mean()) for s in scores),
        tuple(float((s > monitor.threshold).mean()) for s in scores),
    )
