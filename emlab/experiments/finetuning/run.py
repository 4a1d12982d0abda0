"""A grid of fine-tunes: what does a model become by what it is trained on, and when?

Every arm (a set, or a dose of a bad set in a good one) is trained on from every start with every seed, and asked
questions outside its domain. One figure shows the result, of three kinds: bars by domain or start, the curve over
doses, or what was read along the fine-tunes. The experiments made of it:

- `domains`: correct, obviously bad and subtly bad answers in several domains (Wang et al. 2025, arXiv:2506.19823)
- `dose_response`: how much bad data it takes
- `checkpoints`: latent, behaviour, gradient norm and rotation along training, and which comes first (after Turner et
  al. 2025, arXiv:2506.11613)
- `pretraining`: fine-tunes of models from before the persona existed
- `backdoor`: with and without the trigger (Betley et al. 2025, arXiv:2502.17424)
- `sizes`: organisms of several sizes

Nothing is chosen on the questions that are scored: recipe and steps are fixed beforehand, and read-outs along the way
ask the discovery half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab.evaluation import Score
from emlab.experiments.finetuning.config import Arm, Config, Following
from emlab.experiments.finetuning.report import (
    FinetuneCell,
    FinetuneFindings,
    finetuning_lead,
    finetuning_sections,
    finetuning_summary,
)
from emlab.experiments.finetuning.stages import Grid, inputs_of
from emlab.experiments.material.results import finish
from emlab.experiments.registry import experiment
from emlab.runs import Run

__all__ = ["Arm", "Config", "Finetuning", "Following", "run"]


@dataclass(frozen=True, eq=False)
class Finetuning:
    """What a run found, and where it lies."""

    folder: Path
    found: FinetuneFindings
    summary: Mapping[str, Any]
    """What stands in summary.json."""

    def __str__(self) -> str:
        return "\n".join([*self.summary["findings"], f"Report: {self.folder / 'report.html'}"])


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Finetuning:
    """Run the grid, or go on with an unfinished one of the same config; then write summary.json and a report."""
    here = Run.resume(config.name, config, root, inputs_of(config))
    grid = Grid(config, here)
    grid.say_size()
    before: dict[tuple[str, str], Score] = {}
    cells: list[FinetuneCell] = []
    for start in grid.starts:
        before |= {(start, ending): found for ending, found in grid.before(start).items()}
        for seed in config.seeds:
            for arm in config.arms:
                cells += grid.cells(arm, start, seed)
    found = FinetuneFindings(
        config.model,
        before,
        tuple(cells),
        grid.latents() if config.following.every else (),
        grid.left_out,
        config.figure,
        config.x,
        config.series,
    )
    figures = {**finetuning_summary(found), "recipe": config.recipe, "seeds": config.seeds}
    lead, sections = finetuning_lead(found), finetuning_sections(found)
    summary = finish(here, config.title, config.model, lead, sections, figures, config.summary, config.seeds)
    return Finetuning(here.folder, found, summary)
