"""Monitors: fitted on fine-tunes of some domains, tested on fine-tunes of others.

1. **fine-tune** on bad and on good data in several domains, with several seeds; sample and judge answers
2. **fit** every monitor on some domains: a projection, a linear probe, one SAE latent and several, at each site, and
   perplexity and a bag of words; the site is chosen, and scores are calibrated, by leaving out one of them at a time
3. **test** on the other domains, other seeds and other questions: of models from prompts alone, and of answers
4. **stream**: the monitor of answers while the test fine-tunes write, and an edit on the tokens it fires on

Nothing of the domains, seeds or questions that are tested on is seen before step 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab.experiments.finetuning.stages import inputs_of
from emlab.experiments.finetuning.tunes import Pair, grid_config
from emlab.experiments.material.results import finish
from emlab.experiments.monitors.config import Config
from emlab.experiments.monitors.report import MonitorFindings, monitors_lead, monitors_sections, monitors_summary
from emlab.experiments.monitors.stages import Stages
from emlab.experiments.registry import experiment
from emlab.runs import Run

__all__ = ["Config", "Monitors", "Pair", "run"]


@dataclass(frozen=True, eq=False)
class Monitors:
    """What a run found, and where it lies."""

    folder: Path
    found: MonitorFindings
    summary: Mapping[str, Any]
    """What stands in summary.json."""

    def __str__(self) -> str:
        return "\n".join([*self.summary["findings"], f"Report: {self.folder / 'report.html'}"])


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Monitors:
    """Run it, or go on with an unfinished run of the same config; then write summary.json and a report."""
    pairs = (*config.fit, *config.test, *((Pair("hard", config.hard, config.hard),) if config.hard else ()))
    grid = grid_config(config, pairs, (*config.fit_seeds, *config.test_seeds))
    here = Run.resume(config.name, config, root, inputs_of(grid))
    stages = Stages(config, grid, here)
    found = stages.findings()
    lead, sections = monitors_lead(found), monitors_sections(found)
    summary = finish(here, config.title, config.model, lead, sections, monitors_summary(found), config.summary)
    return Monitors(here.folder, found, summary)
