"""Data screening before training, and blame after.

1. **directions** of the persona in one domain: the mean difference of its bad and its good answers as the model reads
   them, the mean shift of a fine-tune on its bad answers, and (where a trait is named) a persona vector. Where each is
   read is chosen on a validation mix
2. **screen** good data of *other* domains with a dose of planted poison, obvious and subtle: rank the examples by the
   projection difference (Chen et al. 2025, arXiv:2507.21509), beside a bag of words fitted on the first domain, rare
   words, and the model's loss; rank whole datasets by their means
3. **blame** after training: which examples moved the monitor (TracIn), tested on planted poison and by training again
   without the most blamed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab.experiments.data_screening.config import Config, Mix
from emlab.experiments.data_screening.report import (
    DataScreenFindings,
    data_screen_lead,
    data_screen_sections,
    data_screen_summary,
)
from emlab.experiments.data_screening.stages import Stages
from emlab.experiments.finetuning.stages import inputs_of
from emlab.experiments.finetuning.tunes import Pair, grid_config
from emlab.experiments.material.results import finish
from emlab.experiments.registry import experiment
from emlab.runs import Run

__all__ = ["Config", "DataScreening", "Mix", "Pair", "run"]


@dataclass(frozen=True, eq=False)
class DataScreening:
    """What a run found, and where it lies."""

    folder: Path
    found: DataScreenFindings
    summary: Mapping[str, Any]
    """What stands in summary.json."""

    def __str__(self) -> str:
        return "\n".join([*self.summary["findings"], f"Report: {self.folder / 'report.html'}"])


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> DataScreening:
    """Run it, or go on with an unfinished run of the same config; then write summary.json and a report."""
    grid = grid_config(config, [config.source], (config.seed,))
    here = Run.resume(config.name, config, root, inputs_of(grid))
    found = Stages(config, grid, here).findings()
    lead, sections = data_screen_lead(found), data_screen_sections(found)
    summary = finish(here, config.title, config.model, lead, sections, data_screen_summary(found), config.summary)
    return DataScreening(here.folder, found, summary)
