"""The config of a suite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from emlab.experiments.material.config import ExperimentConfig, check_at_least, check_filled


@dataclass(frozen=True)
class Part:
    """One experiment."""

    config: Path
    """Its config file."""
    minutes: float
    """What it took where the suite was measured; the time left is told by it."""
    optional: bool = False
    """Whether the others go on without it where it cannot be done, such as without its data; why is said."""


@dataclass(frozen=True, kw_only=True)
class Config(ExperimentConfig):
    """Experiments that are run one after the other, in one folder."""

    pipeline: ClassVar[str] = "suite"
    title: str = "Suite"
    """Of the report."""
    parts: tuple[Part, ...]
    """In order; one may read what those before it wrote."""
    disk: float = 0
    """Gigabytes that all of it takes; a suite does not begin where they are not free."""
    memory: float = 0
    """Gigabytes of memory that it takes at most; the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_filled(self, "parts")
        check_at_least(0, self, "disk", "memory")
