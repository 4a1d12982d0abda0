"""Experiment configs: a YAML file and `key=value` overrides become one frozen dataclass, checked field by field.

A config is a frozen dataclass whose fields are text, numbers, yes/no, paths, Literal choices, tuples or lists of these,
mappings from text, further dataclasses, or any of them or None. Everything that does not fit is refused with one
sentence that names the place and, for a misspelt key, the closest key there is.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from emlab.artifacts import expanded, place, plain
from emlab.errors import EmlabError

T = TypeVar("T")

PIPELINE = "pipeline"
"""The key of a config file that says which pipeline reads it; every config may have it. A config class that states it
(`pipeline: ClassVar[str]`) has it written into what `dump` makes of its configs, so that `emlab run` takes them."""


@dataclasses.dataclass(frozen=True)
class _Text:
    """The right side of an override, as typed: what it means depends on the field that it is for."""

    text: str


def load(path: str | Path | None, overrides: Iterable[str], kind: type[T]) -> T:
    """Read the YAML file at `path` (None: none), apply `overrides` in order, and make a `kind` of it.

    An override is `key=value`; a dotted key (`recipe.steps=10`) reaches into a nested config, whose other fields keep
    the values that the file gives, or else those of the field's default. A text field takes the value exactly as typed
    (`null` where the field may be None); numbers are read as Python reads them; everything else as YAML
    (`domains=[law, food]`). The key `pipeline` is passed on only where `kind` has such a field.

    Raises EmlabError for an unreadable file, an unknown or repeated key, a missing field, or a value of another type.
    """
    values = {} if path is None else _read(path)
    for override in overrides:
        _apply(values, override)
    if PIPELINE not in {field.name for field in dataclasses.fields(typing.cast(Any, kind))}:
        values.pop(PIPELINE, None)
    result: T = _dataclass(values, kind, "the config" if path is None else str(path), "")
    return result


def pipeline_of(path: str | Path, overrides: Iterable[str] = ()) -> str:
    """The name under the key `pipeline` of the config at `path`; EmlabError where there is none."""
    values = _read(path)
    for override in overrides:
        _apply(values, override)
    name = values.get(PIPELINE)
    name = name.text if isinstance(name, _Text) else name
    if not isinstance(name, str) or not name:
        raise EmlabError(
            f"{path}: the key 'pipeline' is missing; add a line such as 'pipeline: persona_features', or give "
            "pipeline=NAME."
        )
    return name


def dump(config: Any) -> str:
    """The YAML text of a config, every default written out; `load` makes an equal config of it."""
    # ASCII with escapes: PyYAML writes the rarer line separators as they are, and reads them back as line ends.
    values = plain(config)
    if PIPELINE not in values and isinstance(stated := getattr(type(config), PIPELINE, None), str):
        values = {PIPELINE: stated, **values}
    return typing.cast(str, yaml.safe_dump(values, sort_keys=False, allow_unicode=False, width=120))


# ------------------------------------------------------------------------------------------------------- reading


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice, where plain PyYAML keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key != "<<" and key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key}' stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return typing.cast(dict[Any, Any], super().construct_mapping(node, deep=deep))


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise EmlabError(f"{where}{line}: not valid YAML ({error.problem}); mend it there.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-99-99
        raise EmlabError(f"{where}: not valid YAML ({' '.join(str(error).split())}); mend it there.") from error


def _read(path: str | Path) -> dict[str, Any]:
    path = place(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise EmlabError(f"{path} does not exist; check the path to the config.") from error
    except UnicodeDecodeError as error:
        raise EmlabError(f"{path} is not UTF-8 text; check that it is the YAML config you meant.") from error
    except OSError as error:
        raise EmlabError(f"{path} cannot be read ({error.strerror}); give the path of a YAML file.") from error
    values = _parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise EmlabError(f"{path}: a config is a mapping of 'key: value' lines, and this is {_said(values)}.")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise EmlabError(f"'{override}' is no override; write it as key=value, for example seed=1.")
    place = values
    for part in parts[:-1]:
        inner = place.get(part)
        if isinstance(inner, _Text):
            inner = _parse_yaml(inner.text, f"override {part}")
        elif inner is not None and not isinstance(inner, dict):
            raise EmlabError(f"'{override}' reaches into '{part}', which is {_said(inner)} and has no keys.")
        # A copy: with YAML's anchors two keys may share one mapping.
        place[part] = dict(inner) if isinstance(inner, dict) else {}
        place = place[part]
    place[parts[-1]] = _Text(text)


# --------------------------------------------------------------------------------------------- checking, by type


def _dataclass(values: Any, kind: Any, file: str, prefix: str, base: Any = None, whole: Any = None) -> Any:
    """A `kind` made of `values`; fields that have no value there are taken from `base`, if it is a `kind` too.

    `whole` is the class of the whole config, where it is not `kind`.
    """
    if not isinstance(values, Mapping):
        raise _wrong(file, prefix, "a mapping of keys", values)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for key in values:
        if key not in fields:
            raise _unknown(file, prefix, str(key), fields, whole or kind)
    kinds = typing.get_type_hints(kind)
    arguments = {}
    for name, field in fields.items():
        place = _join(prefix, name)
        default = getattr(base, name) if isinstance(base, kind) else _default(field)
        if name in values:
            arguments[name] = _convert(values[name], kinds[name], file, place, default, whole or kind)
        elif default is dataclasses.MISSING:
            raise EmlabError(f"{file}: the key '{place}' is missing; add it there or give {place}=value.")
        else:
            arguments[name] = default
    try:
        return kind(**arguments)
    except ValueError as error:  # from a check in the dataclass itself
        raise EmlabError(f"{file}: {error}") from error


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _convert(value: Any, kind: Any, file: str, key: str, default: Any = None, whole: Any = None) -> Any:
    """`value` (from YAML, or a `_Text` from an override) as `kind`, or an EmlabError that names `key` in `file`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _union(value, arguments, file, key, default, whole)
    if origin is typing.Literal:
        return _literal(value, arguments, file, key)
    if kind in (str, Path):
        text = value.text if isinstance(value, _Text) else value
        if not isinstance(text, str):
            raise _wrong(file, key, "text", value, mend="put it in quotes")
        return kind(expanded(text))
    if kind in (int, float):
        return _number(value, kind, file, key)

    if isinstance(value, _Text):
        value = _parse_yaml(value.text, f"override {key}")
    if kind is bool:
        if not isinstance(value, bool):
            raise _wrong(file, key, "true or false", value)
        return value
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _dataclass({} if value is None else value, kind, file, key, default, whole)
    if (origin or kind) in (list, tuple, Sequence):
        return _sequence(value, origin or kind, arguments, file, key)
    if (origin or kind) in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(file, key, "a mapping of keys", value)
        item_kind = arguments[1] if arguments else Any
        return {str(name): _convert(item, item_kind, file, _join(key, str(name))) for name, item in value.items()}
    raise TypeError(f"{key}: a config field cannot have the type {kind}")


def _number(value: Any, kind: type[int] | type[float], file: str, key: str) -> int | float:
    name = "a whole number" if kind is int else "a number"
    number = value.text if isinstance(value, _Text) else value
    if isinstance(number, str):  # YAML takes 1e-4 for text; Python knows better
        try:
            number = int(number) if re.fullmatch(r"\s*[+-]?[\d_]+\s*", number) else float(number)
        except ValueError:
            raise _wrong(file, key, name, value) from None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _wrong(file, key, name, value)
    if not math.isfinite(number) or (kind is int and number != int(number)):
        raise _wrong(file, key, name, value)
    try:
        return kind(number)
    except OverflowError:
        raise _wrong(file, key, name, value) from None


def _sequence(value: Any, origin: Any, arguments: tuple[Any, ...], file: str, key: str) -> Any:
    if not isinstance(value, list):
        raise _wrong(file, key, "a list", value, mend="write it as [one, two]")
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise _wrong(file, key, f"a list of {len(arguments)}", value)
        kinds = list(arguments)
    else:
        kinds = [arguments[0] if arguments else Any] * len(value)
    items = [_convert(item, kind, file, f"{key}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True))]
    return items if origin is list else tuple(items)


def _union(value: Any, kinds: tuple[Any, ...], file: str, key: str, default: Any, whole: Any) -> Any:
    given = value.text if isinstance(value, _Text) else value
    if type(None) in kinds and (given is None or (isinstance(value, _Text) and given == "null")):
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    # Text takes anything, so it is asked last: in `int | str` a 3 stays a number.
    rest.sort(key=lambda kind: (kind in (str, Path), kind is float))
    problem: EmlabError | None = None
    for kind in rest:
        try:
            return _convert(value, kind, file, key, default, whole)
        except EmlabError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _literal(value: Any, choices: tuple[Any, ...], file: str, key: str) -> Any:
    for choice in choices:
        if isinstance(value, _Text):
            if value.text == str(choice):
                return choice
        elif value == choice and type(value) is type(choice):
            return choice
    said = ", ".join(str(choice) for choice in choices)
    raise EmlabError(f"{file}: '{key}' must be one of {said}, and it is {_said(value)}.")


# ----------------------------------------------------------------------------------------------------- sentences


def _join(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key


def _said(value: Any) -> str:
    """A value in the words of a sentence."""
    if isinstance(value, _Text):
        return f"'{value.text}'"
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"'{value}'" if isinstance(value, str) else str(value).lower()


def _wrong(file: str, key: str, wanted: str, value: Any, mend: str = "") -> EmlabError:
    place = f"'{key}'" if key else "the config"
    return EmlabError(f"{file}: {place} must be {wanted}, and it is {_said(value)}{'; ' + mend if mend else ''}.")


def _unknown(file: str, prefix: str, key: str, valid: Iterable[str], whole: Any) -> EmlabError:
    here = {_join(prefix, name): _alike(key, name) for name in valid}
    # The same name, or nearly, may stand in another part of the config: steps for recipe.steps, recipe.seed for seed.
    there = {place: _alike(key, place.rpartition(".")[2]) for place in _places(whole, "") if place not in here}
    close = max(here.values(), default=0.0)
    if (far := max(there.values(), default=0.0)) >= 0.8 and far > close:
        found = [place for place, alike in there.items() if alike == far]
    else:
        found = [place for place, alike in here.items() if alike == close][:1] if close >= 0.6 else []
    names = [f"'{place}'" for place in found]
    said = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)
    mend = f"did you mean {said}?" if names else f"the keys here are {', '.join(valid) or 'none'}."
    return EmlabError(f"{file}: unknown key '{_join(prefix, key)}'; {mend}")


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _places(kind: Any, prefix: str, within: tuple[Any, ...] = ()) -> list[str]:
    """The dotted key of every field of a config class, at any depth."""
    if kind in within:  # a class may hold its own kind
        return []
    found, kinds = [], typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        place = _join(prefix, field.name)
        found.append(place)
        for inner in (kinds[field.name], *typing.get_args(kinds[field.name])):
            if dataclasses.is_dataclass(inner) and not _is_sequence(kinds[field.name]):
                found += _places(inner, place, (*within, kind))
    return found


def _is_sequence(kind: Any) -> bool:
    return (typing.get_origin(kind) or kind) in (list, tuple, Sequence, dict, Mapping)
