"""Experiment configs: a YAML file and `key=value` overrides become one frozen dataclass, checked field by field.

A config is a frozen dataclass whose fields are text, numbers, yes/no, paths, Literal choices, tuples or lists of these,
mappings from text, further dataclasses, or any of them or None: pydantic checks them. Everything that does not fit is
refused with one sentence that names the place and, for a misspelt key, the closest key there is.
"""

import dataclasses
import difflib
import functools
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from emlab.artifacts import expanded, plain, read_text
from emlab.errors import EmlabError
from emlab.shipped import located

T = TypeVar("T")

PIPELINE = "pipeline"
"""The key of a config file that says which pipeline reads it; every config may have it. A config class that states it
(`pipeline: ClassVar[str]`) has it written into what `dump` makes of its configs, so that `emlab run` takes them."""


def load(path: str | Path | None, overrides: Iterable[str], kind: type[T]) -> T:
    """Read the YAML file at `path` (None: none), apply `overrides` in order, and make a `kind` of it.

    An override is `key=value`; a dotted key (`recipe.steps=10`) reaches into a nested config, whose other fields keep
    the values that the file gives, or else those of the field's default. A text field takes the value exactly as typed
    (`null` where the field may be None); numbers are read as Python reads them; everything else as YAML
    (`domains=[law, food]`). The key `pipeline` is passed on only where `kind` has such a field.

    Raises EmlabError for an unreadable file, an unknown or repeated key, a missing field, or a value of another type.
    """
    file = "the config" if path is None else str(path)
    values, typed = _values(path, overrides)
    if PIPELINE not in {field.name for field in dataclasses.fields(typing.cast(Any, kind))}:
        values.pop(PIPELINE, None)
    try:
        try:
            return typing.cast(T, _checked(values, kind))
        except pydantic.ValidationError as error:
            # An override that is no number or YAML that the field takes is the text that was typed.
            for parts in typed.keys() & {_keys(problem, values) for problem in _problems(error)}:
                functools.reduce(lambda inner, key: inner[key], parts[:-1], values)[parts[-1]] = typed[parts]
            return typing.cast(T, _checked(values, kind))
    except pydantic.ValidationError as error:
        problems = _problems(error)
        raise EmlabError(f"{file}: {_sentence(problems[0], _keys(problems[0], values), kind)}") from error


def pipeline_of(path: str | Path, overrides: Iterable[str] = ()) -> str:
    """The name under the key `pipeline` of the config at `path`; EmlabError where there is none."""
    values, typed = _values(path, overrides)
    name = typed.get((PIPELINE,), values.get(PIPELINE))
    if not isinstance(name, str) or not name:
        raise EmlabError(
            f"{path}: the key 'pipeline' is missing; add a line such as 'pipeline: persona_features', or give "
            "pipeline=NAME."
        )
    return name


def dump(config: Any) -> str:
    """The YAML text of a config, every default written out; `load` makes an equal config of it."""
    values = plain(config)
    if PIPELINE not in values and isinstance(stated := getattr(type(config), PIPELINE, None), str):
        values = {PIPELINE: stated, **values}
    # ASCII with escapes: PyYAML writes the rarer line separators as they are, and reads them back as line ends.
    text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=120)
    return typing.cast(str, text)


# ------------------------------------------------------------------------------------------------------- reading


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice, where plain PyYAML keeps the last one silently; 1e-4 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key != "<<" and key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key}' stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return typing.cast(dict[Any, Any], super().construct_mapping(node, deep=deep))


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads: the text 1e4 stands in quotes."""


_FLOAT, _STAMP = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
for _class in (_Loader, _Dumper):
    numbers = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$")
    _class.add_implicit_resolver(_FLOAT, numbers, list("-+.0123456789"))  # type: ignore[attr-defined]
_Loader.add_constructor(_FLOAT, lambda loader, node: _whole(loader.construct_yaml_float(node)))
_Loader.add_constructor(_STAMP, lambda loader, node: loader.construct_scalar(node))  # a date is text
_Loader.add_constructor("tag:yaml.org,2002:str", lambda loader, node: expanded(loader.construct_scalar(node)))


def _whole(number: float) -> int | float:
    """1e3 and 10.0 are whole numbers too."""
    return int(number) if number.is_integer() and 0 < abs(number) < 2**53 else number


def _parsed(text: str, where: str) -> Any:
    try:
        value = _Loader(text).get_single_data()
        json.dumps(value, default=plain)  # what holds itself is refused
        return value
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise EmlabError(f"{where}{line}: not valid YAML ({error.problem}); mend it there.") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, EmlabError) as error:
        raise EmlabError(f"{where}: not valid YAML ({' '.join(str(error).split())}); mend it there.") from error


def _meant(text: str) -> Any:
    """What an override says where its field is not text: a number as Python reads it, or YAML."""
    for number in (int, lambda text: _whole(float(text))):
        try:
            return number(text)
        except ValueError:
            continue
    try:
        value = _parsed(text, "")
    except EmlabError:
        return expanded(text)
    # YAML's own numbers (12:30 is 750, 0x1f is 31) are none here.
    return value if isinstance(value, bool | list | dict) or text == "null" else expanded(text)


def _values(path: str | Path | None, overrides: Iterable[str]) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """What the file and the overrides say, and by its keys the text of each override as typed."""
    values: Any = None if path is None else _parsed(read_text(located(path), "YAML"), str(located(path)))
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise EmlabError(f"{path}: a config is a mapping of 'key: value' lines, and this is {_said(values)}.")
    typed: dict[tuple[str, ...], str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = tuple(key.strip().split("."))
        if not equals or not all(parts):
            raise EmlabError(f"'{override}' is no override; write it as key=value, for example seed=1.")
        inside = values
        for part in parts[:-1]:
            inner = inside.get(part)
            if inner is not None and not isinstance(inner, dict):
                raise EmlabError(f"'{override}' reaches into '{part}', which is {_said(inner)} and has no keys.")
            inside[part] = dict(inner or {})  # a copy: with YAML's anchors two keys may share one mapping
            inside = inside[part]
        inside[parts[-1]] = _meant(text)
        typed = {keys: said for keys, said in typed.items() if any(a != b for a, b in zip(keys, parts, strict=False))}
        typed[parts] = expanded(text)
    return values, typed


# ------------------------------------------------------------------------------------------------------ checking


@functools.cache
def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    # In a list, since a dataclass takes the settings of what it is in.
    return pydantic.TypeAdapter(
        list[kind], config=pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    )


def _checked(values: Mapping[str, Any], kind: Any) -> Any:
    # As JSON, from which pydantic takes lists as tuples, and nothing else than what it is.
    return _adapter(kind).validate_json(json.dumps([_filled(values, kind)], default=plain))[0]


def _filled(values: Mapping[str, Any], kind: Any, base: Any = None) -> dict[str, Any]:
    """`values` of a `kind`; in a nested config that is given in part the rest is what its field's default holds."""
    held = isinstance(base, kind)
    filled = {name: plain(getattr(base, name)) for name in _fields(kind)} if held else {}
    filled |= values
    for name, (field, hint) in _fields(kind).items():
        for inner, several in _configs(hint) if name in values else ():
            value = values[name]
            if several:
                items = value if isinstance(value, list) else ()
                filled[name] = [_filled(item, inner) if isinstance(item, Mapping) else item for item in items] or value
            elif isinstance(value, Mapping) or (value is None and type(None) not in _options(hint)):
                default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
                filled[name] = _filled(value or {}, inner, getattr(base, name) if held else default)
    return filled


def _fields(kind: Any) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind)
    return {field.name: (field, hints[field.name]) for field in dataclasses.fields(kind) if field.init}


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _configs(hint: Any) -> Iterator[tuple[Any, bool]]:
    """The config classes that a field may hold, and whether it holds several."""
    for option in _options(hint):
        several = typing.get_origin(option) in (tuple, list)
        inner = typing.get_args(option)[0] if several else option
        if dataclasses.is_dataclass(inner):
            yield inner, several


# ----------------------------------------------------------------------------------------------------- sentences

_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping of keys",
    "dataclass": "a mapping of keys",
}
"""What was wanted, by the beginning of the name of pydantic's error."""
_MENDS = {"text": "; put it in quotes", "a list": "; write it as [one, two]"}


def _problems(error: pydantic.ValidationError) -> list[Any]:
    """Unknown keys come first: a key that is misspelt is also missing."""
    return sorted(error.errors(), key=lambda problem: problem["type"] != "unexpected_keyword_argument")


def _keys(problem: Any, values: Any) -> tuple[str | int, ...]:
    """Where the problem is: pydantic's place without its names for the options of a union."""
    keys: list[str | int] = []
    for part in problem["loc"][1:]:
        there = part in values if isinstance(values, Mapping) else isinstance(values, list) and isinstance(part, int)
        if there or problem["type"] == "missing":
            keys.append(part)
        values = values[part] if there and problem["type"] != "missing" else values
    return tuple(keys)


def _sentence(problem: Any, keys: tuple[str | int, ...], kind: Any) -> str:
    """What is wrong, where, and the mend."""
    place, about, context, given = _dotted(keys), problem["type"], problem.get("ctx", {}), problem["input"]
    match about.partition("_")[0]:
        case "unexpected":
            return _unknown(place, kind)
        case "missing" if isinstance(keys[-1], str):
            return f"the key '{place}' is missing; add it there or give {place}=value."
        case "missing":
            return f"'{_dotted(keys[:-1])}' must be a longer list, and it is {_said(given)}."
        case "value":  # from a check in the dataclass itself
            return str(context["error"])
        case "too":
            return f"'{place}' must be a list of {context['max_length']}, and it is {_said(given)}."
        case first:
            wanted = _WANTED.get(first) or context.get("expected", problem["msg"])
            return f"'{place}' must be {wanted}, and it is {_said(given)}{_MENDS.get(wanted, '')}."


def _dotted(keys: Iterable[str | int]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _said(value: Any) -> str:
    """A value in the words of a sentence."""
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"'{value}'" if isinstance(value, str) else str(value).lower()


def _unknown(place: str, kind: Any) -> str:
    prefix, dot, key = place.rpartition(".")
    inside, here, alike = re.sub(r"\[\d+\]", "[]", f"{prefix}{dot}"), [], {}
    for where, name in _places(kind, ""):
        ratio = difflib.SequenceMatcher(None, key, name).ratio()
        if where == inside:
            here.append(name)
            alike[f"{prefix}{dot}{name}"] = ratio if ratio >= 0.6 else 0.0
        elif (
            "[" not in where and ratio >= 0.8
        ):  # nearly the same elsewhere: steps for recipe.steps, recipe.seed for seed
            alike[f"{where}{name}"] = ratio
    best = [found for found, ratio in alike.items() if ratio == max(alike.values()) > 0]
    local = [found for found in best if found.rpartition(".")[0] == prefix][:1]
    meant = " or ".join(f"'{found}'" for found in local or best)
    return f"unknown key '{place}'; " + (
        f"did you mean {meant}?" if meant else f"the keys here are {', '.join(here) or 'none'}."
    )


def _places(kind: Any, prefix: str, within: tuple[Any, ...] = ()) -> Iterator[tuple[str, str]]:
    """Every field of a config class, at any depth: the dotted keys before it, and its own."""
    for name, (_, hint) in _fields(kind).items():
        yield prefix, name
        for inner, several in _configs(hint):
            if inner not in (*within, kind):  # one may hold its own kind
                yield from _places(inner, f"{prefix}{name}{'[]' * several}.", (*within, kind))
