"""Monitors: fitted on fine-tunes of some domains, tested on fine-tunes of others.

1. **fine-tune** on bad and on good data in several domains, with several seeds; sample and judge answers
2. **fit** every monitor on some domains: a projection, a linear probe, one SAE latent and several, at each site, and
   perplexity and a bag of words; the site is chosen, and scores are calibrated, by leaving out one of them at a time
3. **test** on the other domains, other seeds and other questions: of models from prompts alone, and of answers
4. **stream**: the monitor of answers while the test fine-tunes write, and an edit on the tokens it fires on

Nothing of the domains, seeds or questions that are tested on is seen before step 3.
"""

from __future__ import annotations

from pathlib import Path

from emlab.artifacts import plain
from emlab.experiments.finetuning.tunes import Pair, Tunes
from emlab.experiments.material.results import Result, finish_run
from emlab.experiments.monitors.config import Config
from emlab.experiments.monitors.report import MonitorFindings, monitors_lead, monitors_sections
from emlab.experiments.monitors.stages import MonitorStages
from emlab.experiments.registry import experiment


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[MonitorFindings]:
    """Run it, or go on with an unfinished run of the same config; then write summary.json and a report."""
    pairs = (*config.fit, *config.test, *((Pair("hard", config.hard, config.hard),) if config.hard else ()))
    tunes = Tunes.resume(config, root, pairs, (*config.fit_seeds, *config.test_seeds))
    found = MonitorStages(config, tunes).findings()
    lead, sections = monitors_lead(found), monitors_sections(found)
    return finish_run(tunes.run, config, found, lead, sections, plain(found))
