"""False discoveries: the whole search where there is nothing to be found. It must say so every time.

In three conditions the behaviour is there, and what the search looks for is not: the *control world*, whose text has no
shared persona, fine-tuned on bad answers *everywhere*; the planted world with the SAE's *latents shuffled*; and the
planted world with the persona's *direction* taken out of the SAE. In three more there is not even the behaviour: the
control world fine-tuned narrowly, *secure-only* fine-tunes, and narrow fine-tunes and controls under each other's
*labels*. Beside them stands the *planted* world: a search that never finds anything passes the others for nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from emlab.evaluation import Rate, wilson
from emlab.experiments.false_discoveries.config import CONDITIONS, PLANTED, Config
from emlab.experiments.material.results import Result, finish_run, take_over
from emlab.experiments.material.sealing import open_seal
from emlab.experiments.persona_features import run as persona_features
from emlab.experiments.registry import experiment
from emlab.runs import Run


@dataclass(frozen=True)
class Outcome:
    """How one search ended."""

    condition: str
    seed: int
    found: bool
    behaves: bool
    """Whether the narrow fine-tunes were misaligned and the controls were not."""
    reasons: tuple[str, ...]
    """Why nothing was found."""
    summary: str
    """Where its summary.json lies, below the run's folder."""

    def __str__(self) -> str:
        said = "found" if self.found else f"nothing found: {' '.join(self.reasons)}"
        return f"{self.condition}, seed {self.seed}: {said}"


@dataclass(frozen=True)
class Count:
    """The searches of one condition."""

    condition: str
    behaves: int
    """Searches in which the narrow fine-tunes were misaligned and the controls were not, so that there was something to
    be wrong about."""
    found: Rate
    """The share that found a persona latent, of all searches, with Wilson's 95% interval: seeds are of one organism."""

    def __str__(self) -> str:
        n = self.found.n
        found = f"found in {round(self.found.rate * n)} of {n} (at most {self.found.high:.0%})"
        return f"{self.condition}: {found}, behaviour there in {self.behaves}."


def counts(outcomes: Sequence[Outcome]) -> tuple[Count, ...]:
    """By condition, in order."""
    found = []
    for condition in dict.fromkeys(outcome.condition for outcome in outcomes):
        of = [outcome for outcome in outcomes if outcome.condition == condition]
        rate = wilson(sum(outcome.found for outcome in of), len(of))
        found.append(Count(condition, sum(outcome.behaves for outcome in of), rate))
    return tuple(found)


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> Result[tuple[Outcome, ...]]:
    """Run every condition with every seed; searches that were done before are not repeated."""
    here = Run.resume(config.name, config, root)
    open_seal(here, config)

    def search(condition: str, seed: int) -> Outcome:
        changes = {"name": condition, "seed": seed, "sealed": config.sealed, **CONDITIONS[condition]}
        settings, part = dataclasses.replace(config.experiment, **changes), f"searches/{condition}-{seed}"
        ran = persona_features.run(settings, here.folder / part)
        take_over(here, part, ran.summary)
        verdict, place = ran.found.verdict, (ran.folder / "summary.json").relative_to(here.folder)
        return Outcome(condition, seed, verdict.found, verdict.tests[0].holds, verdict.reasons, str(place))

    outcomes = tuple(
        here.stage(f"outcomes/{condition}-{seed}", partial(search, condition, seed), Outcome)
        for condition, n in config.searches.items()
        for seed in range(n)
    )
    each = counts(outcomes)
    null = [outcome for outcome in outcomes if outcome.condition != PLANTED]
    figures = {"false_discoveries": sum(outcome.found for outcome in null), "searches": len(null), "conditions": each}
    lead = [*map(str, each), f"False discoveries: {figures['false_discoveries']} of {figures['searches']}."]
    lead += [str(outcome) for outcome in outcomes]
    return finish_run(here, config, outcomes, lead, [], {**figures, "outcomes": outcomes})
