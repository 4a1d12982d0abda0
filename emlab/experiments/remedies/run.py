"""Remedies compared: which of them remove misalignment, which only hide it, and what does each cost?

Every training that misaligns (supervised or by reinforcement) is done with every seed; each remedy either trains anew
from the same start on the same bad data, or treats what came of it. Directions, latent, monitor and data filter come
from fine-tunes of other domains; each remedy's setting is chosen on discovery questions with the first seed. What is
scored are other questions, asked as they are, in a conversation like the training's, and with the data's trigger.
Beside the remedies stand the start model, the untreated one, and remedies with random directions.
"""

from __future__ import annotations

from pathlib import Path

from emlab.experiments.material.results import Result, write_result
from emlab.experiments.registry import experiment
from emlab.experiments.remedies.config import Config
from emlab.experiments.remedies.findings import RemedyCell, RemedyFindings
from emlab.experiments.remedies.report import remedies_lead, remedies_sections, remedies_summary
from emlab.experiments.remedies.stages import Comparison, inputs_of
from emlab.runs import Run


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[RemedyFindings]:
    """Compare remedies, or go on with an unfinished comparison of the same config.

    After every seed of every arm, summary.json and the report are written anew with what there is by then.
    """
    comparison = Comparison(config, Run.resume(config.name, config, root, inputs_of(config)))
    comparison.say_size()
    cells: list[RemedyCell] = []
    for seed in map(config.reported, config.seeds):
        for arm in config.arms:
            cells += comparison.cells(arm, seed)
            found = RemedyFindings(config.model, tuple(cells), tuple(comparison.left_out), config.cap)
            done = _report(found, comparison)
    comparison.run.finish()
    return done


def _report(found: RemedyFindings, comparison: Comparison) -> Result[RemedyFindings]:
    """Write summary.json and report.html."""
    config, run = comparison.config, comparison.run
    figures = {**remedies_summary(found), "config": config}
    lead, sections = remedies_lead(found), remedies_sections(found)
    return write_result(run, config, found, lead, sections, figures)
