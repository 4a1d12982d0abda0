"""The experiments that `emlab run` knows: emlab's own, a folder each beside this file, and other packages'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from emlab.registry import Registry

R = TypeVar("R", bound=Callable[..., Any])


@dataclass(frozen=True)
class Experiment:
    """What a config file that names it is run by."""

    config: type[Any]
    """A frozen dataclass, as `emlab.config.load` reads it; its `pipeline` (a ClassVar) is the experiment's name."""
    run: Callable[[Any, str | Path], Any]
    """Takes a config and the folder in which its run's folder is made; what it returns is printed."""


EXPERIMENTS: Registry[Experiment] = Registry("pipeline", "emlab.experiments", "run")
"""By name. emlab's own are found by their folders, and imported when they are asked for."""


def experiment(config: type[Any]) -> Callable[[R], R]:
    """A decorator: the function runs the config files whose `pipeline` is that of the class `config`."""

    def add(run: R) -> R:
        EXPERIMENTS.register(config.pipeline, run)(Experiment(config, run))
        return run

    return add
