"""The remedies that a comparison knows: emlab's own, each a file beside this one, and other packages'."""

from __future__ import annotations

from dataclasses import fields
from typing import TypeVar

from emlab.errors import EmlabError
from emlab.mitigation.materials import Materials
from emlab.mitigation.treatment import Remedy
from emlab.registry import Registry

R = TypeVar("R", bound=Remedy)

REMEDIES: Registry[type[Remedy]] = Registry("remedy", "emlab.mitigation")
"""Their classes by name; each makes one with its own defaults."""


def remedy(kind: type[R]) -> type[R]:
    """A decorator: the class is known by its name. EmlabError where its `needs` or `setting` name nothing."""
    known = [field.name for field in fields(Materials) if "called" in field.metadata]
    if wrong := [need for need in kind.needs if need not in known]:
        raise EmlabError(f"The remedy {kind.__name__} needs {wrong[0]!r}; there are {', '.join(known)}.")
    if kind.setting is not None and (kind.setting not in {field.name for field in fields(kind)} or not kind.values):
        raise EmlabError(
            f"The remedy {kind.__name__} has the setting {kind.setting!r}; give it a field of that name, and values."
        )
    REMEDIES.register(kind.__name__)(kind)
    return kind


def remedies() -> tuple[type[Remedy], ...]:
    """All, in the order in which they are shown. EmlabError where two have one name in tables."""
    kinds = sorted(map(REMEDIES.get, REMEDIES.names()), key=lambda kind: (kind.anew, kind.place, kind.name))
    for kind in kinds:
        if twins := [other for other in kinds if other.name == kind.name and other is not kind]:
            raise EmlabError(
                f"The remedies {kind.__name__} and {twins[0].__name__} are both called {kind.name!r}; rename one."
            )
    return tuple(kinds)
