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

from pathlib import Path

from emlab.artifacts import plain
from emlab.experiments.data_screening.config import Config
from emlab.experiments.data_screening.report import DataScreenFindings, data_screen_lead, data_screen_sections
from emlab.experiments.data_screening.stages import DataScreeningStages
from emlab.experiments.finetuning.tunes import Tunes
from emlab.experiments.material.results import Result, finish_run
from emlab.experiments.registry import experiment


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[DataScreenFindings]:
    """Run it, or go on with an unfinished run of the same config; then write summary.json and a report."""
    tunes = Tunes.resume(config, root, [config.source], (config.seed,))
    found = DataScreeningStages(config, tunes).findings()
    lead, sections = data_screen_lead(found), data_screen_sections(found)
    return finish_run(tunes.run, config, found, lead, sections, plain(found))
