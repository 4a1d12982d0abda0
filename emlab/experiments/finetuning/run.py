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

from pathlib import Path

from emlab.evaluation import Score
from emlab.experiments.finetuning.config import Config
from emlab.experiments.finetuning.findings import FinetuneCell, FinetuneFindings
from emlab.experiments.finetuning.report import finetuning_lead, finetuning_sections, finetuning_summary
from emlab.experiments.finetuning.stages import FinetuneGrid, inputs_of
from emlab.experiments.material.results import Result, finish_run
from emlab.experiments.registry import experiment
from emlab.runs import Run


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[FinetuneFindings]:
    """Run the grid, or go on with an unfinished one of the same config; then write summary.json and a report."""
    grid = FinetuneGrid(config, Run.resume(config.name, config, root, inputs_of(config)))
    grid.say_size()
    before: dict[tuple[str, str, str], Score] = {}
    cells: list[FinetuneCell] = []
    for start in grid.starts:
        before |= {(start, *asked): score for asked, score in grid.before(start).items()}
        for seed in map(config.reported, config.seeds):
            for arm in config.arms:
                cells += grid.cells(arm, start, seed)
    found = FinetuneFindings(config, before, tuple(cells), grid.latents, grid.left_out)
    figures = {**finetuning_summary(found), "recipe": config.recipe, "seeds": config.seeds}
    lead, sections = finetuning_lead(found), finetuning_sections(found)
    return finish_run(grid.run, config, found, lead, sections, figures)
