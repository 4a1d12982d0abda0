"""The config of a count of false discoveries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from emlab.experiments.persona_features import config as persona_features

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
