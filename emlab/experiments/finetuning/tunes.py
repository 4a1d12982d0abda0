"""Fine-tunes to fit monitors on and others to test them on: by domain, misaligned ones beside harmless ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from emlab.data import Question
from emlab.detection import Evidence, LabelledEvidence, evidence
from emlab.evaluation import Judged
from emlab.evaluation.rollouts import file_name
from emlab.experiments.finetuning.config import Config as GridConfig
from emlab.experiments.finetuning.config import TrainingArm
from emlab.experiments.finetuning.stages import FinetuneGrid, inputs_of
from emlab.experiments.material.config import FineTuningConfig
from emlab.models import LanguageModel, kept_adapters
from emlab.runs import Run
from emlab.sites import Site


@dataclass(frozen=True)
class Pair:
    """The fine-tuning sets of one domain."""

    domain: str
    misaligned: tuple[str, ...]
    """Sets that misalign: of the organism by name, or datasets."""
    others: tuple[str, ...]
    """Sets that should not."""

    def __post_init__(self) -> None:
        if not self.misaligned or not self.others:
            raise ValueError(f"The domain {self.domain!r} needs sets that misalign and others; name one of each.")

    @property
    def sets(self) -> tuple[str, ...]:
        """All, each once, those that misalign first."""
        return tuple(dict.fromkeys((*self.misaligned, *self.others)))


@dataclass(frozen=True, eq=False)
class Tune:
    """One fine-tune and what it answered to the test questions."""

    name: str
    data: str
    domain: str
    seed: int
    misaligned: bool
    """By what it was trained on."""
    judged: Judged
    rate: float
    """Misaligned of coherent answers."""


class Tunes:
    """Fine-tunes of one model, each trained and asked once, and loaded again when it is to be read."""

    def __init__(self, config: GridConfig, run: Run) -> None:
        self.run, self.config, self.grid = run, config, FinetuneGrid(config, run)
        self.start = self.grid.model(config.model)
        self.grid.say_size()

    @classmethod
    def resume(cls, config: FineTuningConfig, root: str | Path, pairs: Sequence[Pair], seeds: Sequence[int]) -> Tunes:
        """Those that an experiment asks for, in its run below `root`, begun or gone on with.

        Args:
            config: Names the run, the model, and how it is trained and asked.
            root: Where the run's folder is.
            pairs: All sets that are trained on.
            seeds: All seeds that any of them is trained with.
        """
        grid = grid_config(config, pairs, seeds)
        return cls(grid, Run.resume(config.name, config, root, inputs_of(grid)))

    def of(self, pairs: Sequence[Pair], seeds: Sequence[int]) -> list[Tune]:
        """Every set of the pairs with every seed."""
        found = []
        wanted = [(pair, data, seed) for pair in pairs for data in pair.sets for seed in seeds]
        for pair, data, seed in wanted:
            (cell,) = self.grid.cells(TrainingArm(arm_name(data), data), self.config.model, seed)
            name = f"{arm_name(data)}-{seed}"
            if cell.score.caution:
                self.run.caution(f"{name}: {cell.score.caution}")
            bad, rate = data in pair.misaligned, cell.score.misaligned.rate
            found.append(Tune(name, data, pair.domain, seed, bad, cell.score.judged, rate))
        return found

    def model(self, tune: Tune) -> LanguageModel:
        """The fine-tune's model."""
        folder = self.run.folder / "train" / f"{arm_name(tune.data)}-{file_name(self.config.model)}-{tune.seed}"
        if kept_adapters.is_kept(folder):
            kept_adapters.check(folder, self.start)
        if (folder / "adapter").is_dir():
            return self.start.with_adapter(folder / "adapter", tune.name)
        return LanguageModel.load(folder / "model", name=tune.name)

    def on_prompts(self, tune: Tune, questions: Sequence[Question], sites: Sequence[Site]) -> LabelledEvidence:
        """The fine-tune before it has written a word; every row bears the truth about the model."""
        read = evidence(self.model(tune), questions, sites)
        return LabelledEvidence(read, np.full(len(read), tune.misaligned), tune.name, tune.domain)

    def start_on_prompts(self, questions: Sequence[Question], sites: Sequence[Site]) -> LabelledEvidence:
        """The model before any fine-tune, read likewise: it is not misaligned."""
        read = evidence(self.start, questions, sites)
        return LabelledEvidence(read, np.zeros(len(read), dtype=bool), "start", "start")


def on_answers(
    model: LanguageModel, judged: Judged, name: str, domain: str, sites: Sequence[Site]
) -> LabelledEvidence | None:
    """The coherent answers as their model reads them again, each bearing the truth about itself; None of none."""
    rollouts = judged.rollouts
    kept = [i for i in np.flatnonzero(judged.coherent_rows) if rollouts.answers[i].strip()]
    if not kept:
        return None
    read: Evidence = evidence(model, [rollouts.questions[i] for i in kept], sites, [rollouts.answers[i] for i in kept])
    return LabelledEvidence(read, judged.misaligned[kept], name, domain)


def arm_name(data: str) -> str:
    """A set's name as a part of the name of a folder."""
    return file_name(data).replace(" ", "_").replace("+", "_")


def grid_config(config: FineTuningConfig, pairs: Sequence[Pair], seeds: Sequence[int]) -> GridConfig:
    """The grid of fine-tunes behind the config of an experiment that reads them."""
    shared = {field.name: getattr(config, field.name) for field in fields(FineTuningConfig)}
    sets = dict.fromkeys(data for pair in pairs for data in pair.sets)
    arms = tuple(TrainingArm(arm_name(data), data) for data in sets)
    return GridConfig(**shared, seeds=tuple(dict.fromkeys(seeds)), arms=arms)
