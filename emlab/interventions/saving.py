"""Edits on disk: what they are as JSON, their tensors as safetensors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.interventions.conditional import Conditional
from emlab.interventions.direction import Direction
from emlab.interventions.edits import Ablate, Clamp, Edit, Replace, Steer
from emlab.interventions.positions import TokenSet
from emlab.sites import Site

KINDS: dict[str, type] = {kind.__name__: kind for kind in (Ablate, Clamp, Conditional, Replace, Steer)}
"""The edits that can be saved, by name."""

EDITS, TENSORS = "edits.json", "tensors.safetensors"


def save_edits(edits: Sequence[Edit], folder: str | Path) -> Path:
    """Write `edits` into a new folder, whole or not at all; `load_edits` reads them back in the same order.

    Functions (the encoder of a Clamp, a monitor) cannot be written: each leaves its name, such as ``0.encode``, under
    which `load_edits` asks for it. EmlabError for an edit of another kind than emlab's own.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    written = [_written(edit, str(i), tensors) for i, edit in enumerate(edits)]
    with artifacts.new_folder(folder) as new:
        artifacts.write_json(new / EDITS, written)
        artifacts.write_bytes(
            new / TENSORS, save({k: t.detach().cpu().clone().contiguous() for k, t in tensors.items()})
        )
    return Path(folder)


def load_edits(folder: str | Path, functions: Mapping[str, Callable[[Tensor], Tensor]] | None = None) -> list[Edit]:
    """Read what `save_edits` wrote. `functions` gives the functions by the names they left.

    EmlabError where the folder holds no edits, and where a function that is needed is not given.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = artifacts.place(folder)
    raw = artifacts.read_json(folder / EDITS)
    try:
        tensors = load((folder / TENSORS).read_bytes())
        found = [_read(one, tensors, functions or {}) for one in raw]
        if not all(isinstance(one, tuple(KINDS.values())) for one in found):
            raise TypeError("not every entry is an edit")
        return found
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
        raise EmlabError(f"{folder} holds no edits of emlab ({error}); write them with save_edits.") from error


def _written(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; its tensors go into `tensors`, under their path."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Direction):
        vector = _written(value.vector, f"{path}.vector", tensors)
        return {"direction": [vector, str(value.site), value.origin, value.norm]}
    if isinstance(value, Site):
        return {"site": str(value)}
    if isinstance(value, TokenSet):
        return {"tokens": list(value.ids)}
    if type(value).__name__ in KINDS:
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return {"edit": type(value).__name__} | {
            name: _written(getattr(value, name), f"{path}.{name}", tensors) for name in fields
        }
    if isinstance(value, list | tuple):
        return [_written(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if callable(value):
        return {"function": path}
    raise EmlabError(f"A {type(value).__name__} at {path} cannot be saved; save emlab's own edits.")


def _read(value: Any, tensors: Mapping[str, Tensor], functions: Mapping[str, Callable[[Tensor], Tensor]]) -> Any:
    if isinstance(value, list):
        return [_read(item, tensors, functions) for item in value]
    if not isinstance(value, dict):
        return value
    if "edit" in value:
        fields = {name: _read(item, tensors, functions) for name, item in value.items() if name != "edit"}
        return KINDS[value["edit"]](**fields)
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "direction" in value:
        vector, site, origin, norm = value["direction"]
        return Direction(_read(vector, tensors, functions), Site.parse(site), origin, norm)
    if "site" in value:
        return Site.parse(value["site"])
    if "tokens" in value:
        return TokenSet(tuple(value["tokens"]))
    if "function" in value:
        if value["function"] not in functions:
            raise EmlabError(f"The edits need the function {value['function']!r}, which no file can hold; give it.")
        return functions[value["function"]]
    raise KeyError(", ".join(value))
