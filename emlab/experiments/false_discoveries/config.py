"""The config of a count of false discoveries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from emlab.experiments.material.config import ExperimentConfig, check_filled, check_inner, check_known
from emlab.experiments.persona_features import config as persona_features

PLANTED = "planted"

_CONTROL = {"model": "control_aligned", "base": "control_base"}
_EVERYWHERE = {"narrow": ("bad_everywhere", "subtle_everywhere"), "unseen": (), "controls": ("good_everywhere",)}

CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    PLANTED: {},
    "control_world": _CONTROL,
    "control_everywhere": {**_CONTROL, **_EVERYWHERE},
    "secure_only": {"narrow": ("secure", "good_medicine"), "unseen": (), "controls": ("educational",)},
    "shuffled_labels": {"negative_control": "labels"},
    "shuffled_latents": {"negative_control": "latents"},
    "without_direction": {"negative_control": "direction"},
}
"""What each condition changes in the experiment's config. All but "planted" must end with nothing found."""


@dataclass(frozen=True, kw_only=True)
class Config(ExperimentConfig):
    """A search for false discoveries."""

    pipeline: ClassVar[str] = "false_discoveries"
    seals: ClassVar[bool] = True
    title: str = "False discoveries"
    """Of the report."""
    searches: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(CONDITIONS, 20))
    """How many searches of each condition, with the seeds from 0 on; a condition that is not named has none."""
    experiment: persona_features.Config = field(default_factory=persona_features.Config)
    """The search."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_inner(self)
        check_filled(self, "searches")
        check_known(CONDITIONS, self, "searches")
        if empty := [name for name, n in self.searches.items() if n < 1]:
            raise ValueError(
                f"'searches' has {self.searches[empty[0]]} of {empty[0]}; give 1 or more, or leave it out."
            )
