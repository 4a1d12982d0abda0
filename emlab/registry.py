"""Registries: judges, remedies, discovery methods, experiments and worlds by name, emlab's own and other packages'.

emlab's own things of a kind are files in one package: a decorator in each names what the file adds. Another package
adds its own in the same way, and names the module that does it as an entry point of the group `emlab`:

    [project.entry-points.emlab]
    my_package = "my_package.additions"

That module is imported when a registry is first asked for what it does not know yet.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from emlab.errors import EmlabError

T = TypeVar("T")

GROUP = "emlab"
"""The group of entry points that name modules of other packages."""


class Registry(Generic[T]):
    """Things of one kind by name."""

    def __init__(self, kind: str, package: str = "", within: str = "") -> None:
        """
        Args:
            kind: What they are called in a sentence, such as "judge".
            package: The dotted name of the package in whose modules emlab's own are; empty where they are no modules.
            within: The module inside each of these, where they are packages themselves.
        """
        self.kind, self.package, self.within = kind, package, within
        self._known: dict[str, tuple[T, str]] = {}  # and where each was written
        self._complete = False

    @property
    def _many(self) -> str:
        return f"{self.kind[:-1]}ies" if self.kind.endswith("y") else f"{self.kind}s"

    def register(self, name: str, source: object = None) -> Callable[[T], T]:
        """A decorator that makes what it decorates known as `name`; EmlabError where something else has the name.

        `source` is the function or class that it was made of, where it is none itself. What is defined in the same
        place is the same thing: a module that is run again, as in a notebook, puts its new form in the old one's place.
        """

        def add(thing: T) -> T:
            place = _place(thing if source is None else source)
            if name in self._known and self._known[name][1] != place:
                both = f"{self._known[name][1]}, {place}"
                raise EmlabError(f"Two {self._many} are called {name!r} ({both}): rename one.")
            self._known[name] = thing, place
            return thing

        return add

    def names(self) -> tuple[str, ...]:
        """Of all, sorted."""
        self._load_all()
        return tuple(sorted(self._known))

    def get(self, name: str) -> T:
        """What is called `name`; EmlabError with the closest name where nothing is."""
        if name not in self._known and (module := self._own().get(name)):
            importlib.import_module(module)  # alone: the others may be slow to import
        if name not in self._known:
            self._load_all()
        if name in self._known:
            return self._known[name][0]
        close = difflib.get_close_matches(name, self._known, 1)
        mend = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(self.names()) or 'none'}."
        raise EmlabError(f"There is no {self.kind} {name!r}; {mend}")

    def _own(self) -> dict[str, str]:
        """The modules of emlab's own things, by the names of their files or folders."""
        if not self.package:
            return {}
        folder = importlib.import_module(self.package).__path__
        inside = f".{self.within}" if self.within else ""
        return {
            found.name: f"{self.package}.{found.name}{inside}"
            for found in pkgutil.iter_modules(folder)
            if not inside or (found.ispkg and importlib.util.find_spec(f"{self.package}.{found.name}{inside}"))
        }

    def _load_all(self) -> None:
        if self._complete:
            return
        self._complete = True  # before, since what is imported may ask for names itself
        try:
            for module in self._own().values():
                importlib.import_module(module)
            additions()
        except BaseException:
            self._complete = False  # asked again, it says so again
            raise


def additions() -> None:
    """Import the modules of other packages that add to emlab; EmlabError that names one which cannot be imported."""
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            raise EmlabError(
                f"The package {entry.dist.name if entry.dist else entry.name} adds to emlab by {entry.value}, which "
                f"cannot be imported ({type(error).__name__}: {error}); mend or uninstall it."
            ) from error


def _place(thing: object) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', repr(thing))}"
