"""Results on disk: whatever a stage found is written by `keep` and read back, as what it was, by `kept`.

Dataclasses of plain values (and of tensors, arrays, sites and further dataclasses) are one JSON file. A class that has
a format of its own, with `save(path)` and a classmethod `load(path)`, keeps it. Tuples and mappings of such are a
folder of these. JSON has no NaN: where the field is a float, the `null` in its place is read as NaN again.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import cattrs

from emlab import artifacts
from emlab.errors import EmlabError

NAMES = ".names.json"
"""In the folder of a tuple or mapping: the names of what it holds, in order. What has a name may be several files."""


class Saved:
    """A mixin: `save` writes a dataclass as one JSON file, `load` reads it."""

    def save(self, path: str | Path) -> Path:
        """Write it as JSON."""
        return artifacts.write_json(path, self)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; EmlabError where the file holds something else."""
        return typing.cast(Self, read(path, cls))


def read(path: str | Path, kind: Any) -> Any:
    """The `kind` in the JSON file at `path`; EmlabError where it holds none."""
    return restored(artifacts.read_json(path), kind, str(path))


def restored(raw: Any, kind: Any, where: str = "This") -> Any:
    """What `artifacts.plain` made `raw` of, a `kind`; EmlabError, which says `where`, for another thing."""
    try:
        return _CONVERTER.structure(raw, kind)
    except Exception as error:
        said = "; ".join(cattrs.transform_error(error)) if isinstance(error, cattrs.BaseValidationError) else str(error)
        name = getattr(kind, "__name__", str(kind))
        raise EmlabError(f"{where} holds no {name} ({said}); write it anew.") from error


def keep(value: Any, kind: Any, place: Path) -> None:
    """Write `value`, a `kind`, at `place`: a folder, or a file, to whose name `.json` is added."""
    if (inner := _folders(kind)) is not None:
        named = value if isinstance(value, Mapping) else {str(number): item for number, item in enumerate(value)}
        artifacts.write_json(place / NAMES, list(named))
        for name, item in named.items():
            keep(item, inner, place / name)
    elif _own(kind) is not None:
        if value is not None:
            value.save(place)
    else:
        artifacts.write_json(place.with_name(f"{place.name}.json"), value)


def kept(kind: Any, place: Path) -> Any:
    """What `keep` wrote at `place`."""
    if (inner := _folders(kind)) is not None:
        found = {name: kept(inner, place / name) for name in artifacts.read_json(place / NAMES)}
        return found if _is_mapping(kind) else tuple(found.values())
    if (own := _own(kind)) is not None:
        return own.load(place) if place.exists() or own is kind else None
    return read(place.with_name(f"{place.name}.json"), kind)


# ------------------------------------------------------------------------------------------------- kinds


def _own(kind: Any) -> Any:
    """The class with a format of its own that `kind` is, or is beside None; else None."""
    options = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    for one in options:
        if isinstance(one, type) and hasattr(one, "load") and hasattr(one, "save") and not issubclass(one, Saved):
            return one
    return None


def _folders(kind: Any) -> Any:
    """What a tuple or mapping holds, where that has a format of its own; else None."""
    arguments = typing.get_args(kind)
    if _is_mapping(kind):
        return arguments[1] if _own(arguments[1]) is not None else None
    if typing.get_origin(kind) is tuple and arguments[-1] is Ellipsis and _own(arguments[0]) is not None:
        return arguments[0]
    return None


def _is_mapping(kind: Any) -> bool:
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _converter() -> cattrs.Converter:
    made = cattrs.Converter(forbid_extra_keys=True)
    made.register_structure_hook(float, lambda raw, _: float("nan") if raw is None else float(raw))
    made.register_structure_hook_func(lambda kind: kind is Any, lambda raw, _: raw)
    made.register_structure_hook_func(_is_named(("numpy", "ndarray")), _array)
    made.register_structure_hook_func(_is_named(("torch", "Tensor")), _tensor)
    made.register_structure_hook_factory(lambda kind: hasattr(kind, "parse"), _parsing)
    return made


def _is_named(name: tuple[str, str]) -> Any:
    return lambda kind: (getattr(kind, "__module__", ""), getattr(kind, "__name__", "")) == name


def _array(raw: Any, kind: Any) -> Any:
    import numpy as np

    return np.asarray([float("nan") if item is None else item for item in raw] if isinstance(raw, list) else raw)


def _tensor(raw: Any, kind: Any) -> Any:
    import torch

    return torch.as_tensor(raw)


def _parsing(kind: Any) -> Any:
    """A class with `parse` is read from its text; one that was written as a mapping, from that."""
    plain = isinstance(kind, type) and dataclasses.is_dataclass(kind)
    whole = cattrs.gen.make_dict_structure_fn(kind, _CONVERTER) if plain else None

    def structure(raw: Any, _: Any) -> Any:
        return kind.parse(raw) if isinstance(raw, str) or whole is None else whole(raw, kind)

    return structure


_CONVERTER = _converter()
