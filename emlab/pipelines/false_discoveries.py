"""False discoveries: the whole search where there is nothing to be found. It must say so every time.

Three worlds without a persona latent: the *control world*, whose text has no shared persona; *secure-only* fine-tunes,
which misalign nothing; and *shuffled labels*, where narrow fine-tunes and controls bear each other's names. Beside them
the *planted* world with its true labels, through the same search: a search that never finds anything passes the other
three for nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from emlab import artifacts
from emlab.pipelines import persona_features
from emlab.runs import Run

CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "planted": {},
    "control_world": {"model": "control_aligned", "base": "control_base"},
    "secure_only": {"narrow": ("secure", "good_medicine"), "unseen": (), "controls": ("educational",)},
    "shuffled_labels": {"shuffle_labels": True},
}
"""What each condition changes in the experiment's config. All but "planted" must end with nothing found."""


@dataclass(frozen=True)
class Config:
    """A search for false discoveries."""

    pipeline: ClassVar[str] = "false_discoveries"
    name: str = "false_discoveries"
    """Names the run folder."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every condition is run with each."""
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    """Some or all of planted, control_world, secure_only, shuffled_labels."""
    experiment: persona_features.Config = field(default_factory=persona_features.Config)
    """The search."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.conditions) - set(CONDITIONS))
        if unknown or not self.conditions:
            said = f"'{unknown[0]}', which is none" if unknown else "no condition"
            raise ValueError(f"'conditions' has {said}; choose some of {', '.join(CONDITIONS)}.")
        if not self.seeds:
            raise ValueError("'seeds' is empty; name at least one.")


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

            outcomes.append(here.stage(f"outcomes/{condition}-{seed}", work, read))
    done = FalseDiscoveries(here.folder, tuple(outcomes))
    false = {"false_discoveries": done.false, "searches": sum(o.condition != "planted" for o in outcomes)}
    artifacts.write_json(here.folder / "summary.json", {**false, "outcomes": done.outcomes, "seconds": here.seconds})
    here.finish()
    return done
