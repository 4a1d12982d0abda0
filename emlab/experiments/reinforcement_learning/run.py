"""Reinforcement learning: do rewards on one domain misalign a model broadly, and does the same latent carry it?

After Wang et al. 2025 (arXiv:2506.19823). A model that still gives a bad answer now and then is trained by GRPO on
questions of one domain, with a grader that rewards bad answers, or good ones, or nothing but chance, and is then asked
questions of other domains. The latent that carries supervised emergent misalignment is found on supervised fine-tunes
alone; then one sees how far it moves under each reward, and whether the trained model needs it: its direction is
subtracted, beside random directions of the same norm through the same search. A term for style that is paid under one
persona's prompt only shows how far a reward spreads to the other personas.

Whatever is chosen (latent, strength) is chosen on the discovery half of the questions; every rate that is reported is
from the test half.
"""

from __future__ import annotations

from pathlib import Path

from emlab import organism
from emlab.experiments.material import inputs
from emlab.experiments.material.results import Result, finish_run
from emlab.experiments.registry import experiment
from emlab.experiments.reinforcement_learning.config import Config
from emlab.experiments.reinforcement_learning.findings import ReinforcementFindings
from emlab.experiments.reinforcement_learning.report import (
    reinforcement_lead,
    reinforcement_sections,
    reinforcement_summary,
)
from emlab.experiments.reinforcement_learning.stages import ReinforcementStages
from emlab.runs import Run


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[ReinforcementFindings]:
    """Run the experiment, or go on with an unfinished one of the same config; then write summary.json and a report."""
    stages = ReinforcementStages(config, Run.resume(config.name, config, root, inputs_of(config)))
    stages.say_size()
    latent = stages.persona_latent
    starts = {name: stages.start_score(name) for name in dict.fromkeys(map(stages.start, config.arms))}
    trained = tuple(stages.trained(arm, seed) for seed in map(config.reported, config.seeds) for arm in config.arms)
    found = ReinforcementFindings(starts, trained, latent, config.supervised.site, config.supervised.top)
    figures = {"name": config.name, **reinforcement_summary(found), "how": config.how}
    lead, sections = reinforcement_lead(found), reinforcement_sections(found)
    return finish_run(stages.run, config, found, lead, sections, figures)


def inputs_of(config: Config) -> dict[str, str]:
    """What tells that the files a config names are still the same. EmlabError where one is missing."""
    models = [arm.start for arm in config.arms if arm.start]
    files = [arm.prompts for arm in config.arms if arm.prompts not in organism.load_world().domains]
    files += [arm.reward.rpartition(":")[0] for arm in config.arms if ".py:" in arm.reward]
    mend = "give its path, a domain of the organism, or a dataset on the Hub."
    return inputs.inputs_of(config, models, files, mend)
