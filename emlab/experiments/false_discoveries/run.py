"""False discoveries: the whole search where there is nothing to be found. It must say so every time.

Three worlds without a persona latent: the *control world*, whose text has no shared persona; *secure-only* fine-tunes,
which misalign nothing; and *shuffled labels*, where narrow fine-tunes and controls bear each other's names. Beside them
the *planted* world with its true labels, through the same search: a search that never finds anything passes the other
three for nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from emlab import artifacts
from emlab.experiments.false_discoveries.config import CONDITIONS, Config
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


@dataclass(frozen=True)
class FalseDiscoveries:
    """How all searches ended."""

    folder: Path
    outcomes: tuple[Outcome, ...]

    @property
    def false(self) -> int:
        """Searches that found something where there is nothing."""
        return sum(o.found for o in self.outcomes if o.condition != "planted")

    def __str__(self) -> str:
        lines = []
        for o in self.outcomes:
            lines.append(
                f"{o.condition}, seed {o.seed}: {'found' if o.found else 'nothing found: '}{' '.join(o.reasons)}"
            )
        null = [o for o in self.outcomes if o.condition != "planted"]
        return "\n".join([*lines, f"False discoveries: {self.false} of {len(null)}."])


@experiment(Config)
def run(config: Config, root: str | Path = "runs") -> FalseDiscoveries:
    """Run every condition with every seed, and write summary.json; searches that were done before are not repeated."""
    here = Run.resume(config.name, config, root)
    outcomes = []
    for seed in config.seeds:
        for condition in config.conditions:

            def work(folder: Path, condition: str = condition, seed: int = seed) -> None:
                changes = {"name": condition, "seed": seed, **CONDITIONS[condition]}
                experiment = dataclasses.replace(config.experiment, **changes)
                ran = persona_features.run(experiment, here.folder / "searches" / f"{condition}-{seed}")
                said = str((ran.folder / "summary.json").relative_to(here.folder))
                verdict = ran.found.verdict
                artifacts.write_json(
                    folder / "outcome.json", Outcome(condition, seed, verdict.found, verdict.reasons, said)
                )

            def read(folder: Path) -> Outcome:
                raw = artifacts.read_json(folder / "outcome.json")
                return Outcome(**{**raw, "reasons": tuple(raw["reasons"])})

            outcomes.append(here.fill(f"outcomes/{condition}-{seed}", work, read))
    done = FalseDiscoveries(here.folder, tuple(outcomes))
    false = {"false_discoveries": done.false, "searches": sum(o.condition != "planted" for o in outcomes)}
    artifacts.write_json(here.folder / "summary.json", {**false, "outcomes": done.outcomes, "seconds": here.seconds})
    here.finish()
    return done
