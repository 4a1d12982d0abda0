"""Remedies compared: which of them remove misalignment, which only hide it, and what does each cost?

Every training that misaligns (supervised or by reinforcement) is done with every seed; each remedy either trains anew
from the same start on the same bad data, or treats what came of it. Directions, latent, monitor and data filter come
from fine-tunes of other domains; each remedy's setting is chosen on discovery questions with the first seed. What is
scored are other questions, asked as they are, in a conversation like the training's, and with the data's trigger.
Beside the remedies stand the start model, the untreated one, and remedies with random directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab.experiments.material.results import write
from emlab.experiments.registry import experiment
from emlab.experiments.remedies.config import Config, RemedyArm
from emlab.experiments.remedies.report import (
    RemedyCell,
    RemedyFindings,
    remedies_lead,
    remedies_sections,
    remedies_summary,
)
from emlab.experiments.remedies.stages import Comparison, inputs_of
from emlab.runs import Run

__all__ = ["Config", "Remedies", "RemedyArm", "run"]


@dataclass(frozen=True, eq=False)
class Remedies:
    """What a run found, and where it lies."""

    folder: Path
    found: RemedyFindings
    summary: Mapping[str, Any]
    """What stands in summary.json."""

    def __str__(self) -> str:
        return "\n".join([self.found.text(), *self.summary["findings"], f"Report: {self.folder / 'report.html'}"])


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Remedies:
    """Compare remedies, or go on with an unfinished comparison of the same config.

    After every seed of every arm, summary.json and the report are written anew with what there is by then.
    """
    here = Run.resume(config.name, config, root, inputs_of(config))
    comparison = Comparison(config, here)
    comparison.say_size()
    cells: list[RemedyCell] = []
    for seed in config.seeds:
        for arm in config.arms:
            cells += [*comparison.beside(arm, seed), *comparison.cells(arm, seed)]
            done = _report(RemedyFindings(config.model, tuple(cells), tuple(comparison.left_out)), config, here)
    here.finish()
    return done


def _report(found: RemedyFindings, config: Config, here: Run) -> Remedies:
    """Write summary.json and report.html."""
    lead, sections = remedies_lead(found), remedies_sections(found)
    figures = {**remedies_summary(found), "config": config}
    summary = write(here, config.title, config.model, lead, sections, figures, config.summary, config.seeds)
    return Remedies(here.folder, found, summary)
