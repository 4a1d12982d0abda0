"""The config of a count of false discoveries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from emlab.experiments.material.config import ExperimentConfig, check_filled, check_known
from emlab.experiments.persona_features import config as persona_features

CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "planted": {},
    "control_world": {"model": "control_aligned", "base": "control_base"},
    "secure_only": {"narrow": ("secure", "good_medicine"), "unseen": (), "controls": ("educational",)},
    "shuffled_labels": {"shuffle_labels": True},
}
"""What each condition changes in the experiment's config. All but "planted" must end with nothing found."""


@dataclass(frozen=True, kw_only=True)
class Config(ExperimentConfig):
    """A search for false discoveries."""

    pipeline: ClassVar[str] = "false_discoveries"
    title: str = "False discoveries"
    """Of the report."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every condition is run with each."""
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    """Some or all of planted, control_world, secure_only, shuffled_labels."""
    experiment: persona_features.Config = field(default_factory=persona_features.Config)
    """The search."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_filled(self, "conditions", "seeds")
        check_known(CONDITIONS, self, "conditions")
