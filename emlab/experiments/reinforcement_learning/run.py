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

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab import artifacts, organism
from emlab.errors import EmlabError
from emlab.experiments.material.models import folder_of
from emlab.experiments.material.results import finish
from emlab.experiments.registry import experiment
from emlab.experiments.reinforcement_learning.config import Arm, Config, Steering, Style, Supervised
from emlab.experiments.reinforcement_learning.report import (
    ReinforcementFindings,
    Trained,
    reinforcement_lead,
    reinforcement_sections,
    reinforcement_summary,
)
from emlab.experiments.reinforcement_learning.stages import Lab
from emlab.runs import Run, fingerprint

__all__ = ["Arm", "Config", "ReinforcementLearning", "Steering", "Style", "Supervised", "run"]


@dataclass(frozen=True, eq=False)
class ReinforcementLearning:
    """What a run found, and where it lies."""

    folder: Path
    found: ReinforcementFindings
    summary: Mapping[str, Any]
    """What stands in summary.json."""

    def __str__(self) -> str:
        return "\n".join([*self.summary["findings"], f"Report: {self.folder / 'report.html'}"])


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> ReinforcementLearning:
    """Run the experiment, or go on with an unfinished one of the same config; then write summary.json and a report."""
    here = Run.resume(config.name, config, root, inputs_of(config))
    lab = Lab(config, here)
    lab.say_size()
    latent = lab.persona_latent()
    starts = {name: lab.start_score(name) for name in dict.fromkeys(arm.start or config.model for arm in config.arms)}
    trained = []
    for seed in config.seeds:
        for arm in config.arms:
            start = arm.start or config.model
            done = lab.trained(arm, seed)
            steer = latent is not None and arm.name in config.steering.arms
            trained.append(
                Trained(
                    arm.name,
                    seed,
                    arm.reward,
                    start,
                    arm.prompts,
                    done,
                    lab.scored(done),
                    lab.shifted(start, done),
                    lab.steered(done, latent) if steer and latent is not None else None,
                    lab.style(arm, done) if arm.reward == "style" else (),
                    lab.cpu_seconds(done),
                )
            )
    found = ReinforcementFindings(starts, tuple(trained), latent, config.supervised.site, config.supervised.top)
    return _report(found, config, here)


def inputs_of(config: Config) -> dict[str, str]:
    """What tells that the files a config names are still the same. EmlabError where one is missing."""
    models = dict.fromkeys([config.model, *(arm.start for arm in config.arms if arm.start)])
    found = {f"model {name}": fingerprint(folder_of(name)[0]) for name in models}
    files = [arm.prompts for arm in config.arms if arm.prompts not in organism.load_world().domains]
    files += [arm.reward.rpartition(":")[0] for arm in config.arms if ".py:" in arm.reward]
    for name in dict.fromkeys(files):
        path = artifacts.place(name)
        if path.suffix and not path.exists():
            raise EmlabError(
                f"There is no file {name}, which an arm is trained on; give its path, a domain of the organism, or a "
                "dataset on the Hub."
            )
        found[name] = artifacts.sha256(path) if path.is_file() else fingerprint(path) if path.is_dir() else name
    return found


def _report(found: ReinforcementFindings, config: Config, here: Run) -> ReinforcementLearning:
    """Write summary.json and report.html, and end the run."""
    figures = {"name": config.name, **reinforcement_summary(found), "how": config.how}
    lead, sections = reinforcement_lead(found), reinforcement_sections(found)
    title = "Reinforcement learning"
    summary = finish(here, title, config.model, lead, sections, figures, config.summary, config.seeds)
    return ReinforcementLearning(here.folder, found, summary)
