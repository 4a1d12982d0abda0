"""Early warning: along checkpoints and doses, which monitor raises its alarm first?

1. **fit** monitors on fine-tunes of some domains, as in `emlab.experiments.monitors.run`
2. **train** on bad data of another domain, seed by seed, and read every monitor at each checkpoint on a few prompts; a
   behavioural monitor gets as many answers to the same prompts. Fine-tunes on good data are read in the same way
3. the same over **doses** of bad data, each trained to its end
4. **warn**: every monitor at the lowest threshold that is quiet on the controls, against the step (dose) at which a
   share of the answers to other questions, many more of them, is misaligned; an alarm that is always on beside them
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab.experiments.early_warning.config import Config
from emlab.experiments.early_warning.report import (
    EarlyWarningFindings,
    early_warning_lead,
    early_warning_sections,
    early_warning_summary,
)
from emlab.experiments.early_warning.stages import Stages
from emlab.experiments.finetuning.stages import inputs_of
from emlab.experiments.finetuning.tunes import Pair, grid_config
from emlab.experiments.material.results import finish
from emlab.experiments.registry import experiment
from emlab.runs import Run

__all__ = ["Config", "EarlyWarning", "Pair", "run"]


@dataclass(frozen=True, eq=False)
class EarlyWarning:
    """What a run found, and where it lies."""

    folder: Path
    found: EarlyWarningFindings
    summary: Mapping[str, Any]
    """What stands in summary.json."""

    def __str__(self) -> str:
        return "\n".join([*self.summary["findings"], f"Report: {self.folder / 'report.html'}"])


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> EarlyWarning:
    """Run it, or go on with an unfinished run of the same config; then write summary.json and a report."""
    grid = grid_config(config, [*config.fit, config.watched], config.fit_seeds)
    here = Run.resume(config.name, config, root, inputs_of(grid))
    found = Stages(config, grid, here).findings()
    lead, sections = early_warning_lead(found), early_warning_sections(found)
    summary = finish(here, config.title, config.model, lead, sections, early_warning_summary(found), config.summary)
    return EarlyWarning(here.folder, found, summary)
