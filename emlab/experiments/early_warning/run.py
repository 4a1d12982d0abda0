"""Early warning: along checkpoints and doses, which monitor raises its alarm first?

1. **fit** monitors on fine-tunes of some domains, as in `emlab.experiments.monitors.run`
2. **train** on bad data of another domain, seed by seed, and read every monitor at each checkpoint on a few prompts; a
   behavioural monitor gets as many answers to the same prompts. Fine-tunes on good data are read in the same way
3. the same over **doses** of bad data, each trained to its end
4. **warn**: every monitor at the lowest threshold that is quiet on the controls, against the step (dose) at which a
   share of the answers to other questions, many more of them, is misaligned; an alarm that is always on beside them
"""

from __future__ import annotations

from pathlib import Path

from emlab.experiments.early_warning.config import Config
from emlab.experiments.early_warning.report import (
    EarlyWarningFindings,
    early_warning_lead,
    early_warning_sections,
    early_warning_summary,
)
from emlab.experiments.early_warning.stages import EarlyWarningStages
from emlab.experiments.finetuning.tunes import Tunes
from emlab.experiments.material.results import Result, finish_run
from emlab.experiments.registry import experiment


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[EarlyWarningFindings]:
    """Run it, or go on with an unfinished run of the same config; then write summary.json and a report."""
    tunes = Tunes.resume(config, root, [*config.fit, config.watched], config.fit_seeds)
    found = EarlyWarningStages(config, tunes).findings()
    lead, sections = early_warning_lead(found), early_warning_sections(found)
    return finish_run(tunes.run, config, found, lead, sections, early_warning_summary(found))
