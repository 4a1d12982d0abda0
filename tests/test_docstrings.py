"""Public functions of more than three parameters say what each of them is.

That a section of arguments names all of them is checked by ruff (D417); here, that there is one.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator

import pytest

ROOMS = (
    "data",
    "detection",
    "discovery",
    "evaluation",
    "interventions",
    "mitigation",
    "models",
    "reporting",
    "saes",
    "training",
)


def public_functions(room: str) -> Iterator[tuple[str, Callable]]:
    """The public functions of a room, and the methods of its public classes, by name."""
    module = importlib.import_module(f"emlab.{room}")
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for own, member in vars(value).items():
                member = getattr(member, "__func__", member)  # of a classmethod
                if inspect.isfunction(member) and not own.startswith("_"):
                    yield f"{name}.{own}", member


def undocumented(function: Callable, most: int = 3) -> bool:
    """Whether it has more parameters than `most`, self not counted, and no section that tells them."""
    parameters = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    return len(parameters) > most and "\nArgs:\n" not in (inspect.getdoc(function) or "")


@pytest.mark.parametrize("room", ROOMS)
def test_functions_of_many_parameters_name_each(room):
    # A method of four parameters is read beside its class, which tells most of them.
    found = [name for name, f in public_functions(room) if undocumented(f, most=4 if "." in name else 3)]
    assert not found, f"without Args: {', '.join(found)}"


def test_one_without_is_found():
    def silent(a, b, c, d):
        """Does something."""

    def short(a, b, c):
        """Does something."""

    def said(a, b, c, d):
        """Does something.

        Args:
            a: A.
            b: B.
            c: C.
            d: D.
        """

    assert undocumented(silent) and not undocumented(short) and not undocumented(said)
