"""False discoveries: the whole search where there is nothing to be found. It must say so every time.

Three worlds without a persona latent: the *control world*, whose text has no shared persona; *secure-only* fine-tunes,
which misalign nothing; and *shuffled labels*, where narrow fine-tunes and controls bear each other's names. Beside them
the *planted* world with its true labels, through the same search: a search that never finds anything passes the other
three for nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from emlab.experiments.false_discoveries.config import CONDITIONS, Config
from emlab.experiments.material.results import Result, finish_run
from emlab.experiments.persona_features import run as persona_features
from emlab.experiments.registry import experiment
from emlab.runs import Run


@dataclass(frozen=True)
class Outcome:
    """How one search ended."""

    condition: str
    seed: int
    found: bool
    reasons: tuple[str, ...]
    """Why nothing was found."""
    summary: str
    """Where its summary.json lies, below the run's folder."""

    def __str__(self) -> str:
        said = "found" if self.found else f"nothing found: {' '.join(self.reasons)}"
        return f"{self.condition}, seed {self.seed}: {said}"


def false_discoveries(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Searches where there is nothing to be found, and how many of these found something."""
    null = [outcome for outcome in outcomes if outcome.condition != "planted"]
    return {"false_discoveries": sum(outcome.found for outcome in null), "searches": len(null)}


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[tuple[Outcome, ...]]:
    """Run every condition with every seed; searches that were done before are not repeated."""
    here = Run.resume(config.name, config, root)

    def search(condition: str, seed: int) -> Outcome:
        changes = {"name": condition, "seed": seed, **CONDITIONS[condition]}
        settings = dataclasses.replace(config.experiment, **changes)
        ran = persona_features.run(settings, here.folder / "searches" / f"{condition}-{seed}")
        verdict, place = ran.found.verdict, (ran.folder / "summary.json").relative_to(here.folder)
        return Outcome(condition, seed, verdict.found, verdict.reasons, str(place))

    outcomes = tuple(
        here.stage(f"outcomes/{condition}-{seed}", partial(search, condition, seed), Outcome)
        for seed in config.seeds
        for condition in config.conditions
    )
    figures = false_discoveries(outcomes)
    lead = [*map(str, outcomes), f"False discoveries: {figures['false_discoveries']} of {figures['searches']}."]
    return finish_run(here, config, outcomes, lead, [], {**figures, "outcomes": outcomes, "seconds": here.seconds})
