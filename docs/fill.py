"""Fills the texts from the kept results, so that no figure in them is typed.

    python docs/fill.py            # make docs: writes every X that has an X.jinja beside it
    python docs/fill.py --check    # writes nothing; exit 1 where a text and the kept files part

Edit the `.jinja`, never what is filled from it. In it stand

    kept.domains      docs/domains.json               bench.demo    benchmarks/results/demo.json
    config.remedies   experiments/remedies.yaml       organism      what the shipped organism was built by
    parameters        how many the shipped organism has     domains       how many the organism's world has
    broad_domains     those of the ordinary test questions  profile       emlab's own free-form questions

`kept.domains.arms.one(arm="bad_law")` is the one entry with these values, `.where(…)` are all of them. Filters write
figures: `{{ rate | percent }}`. A claim in words is `{{ "the probe is last" | if_still(condition) }}`: where the kept
files no longer bear it out, it is named, its text is not written, and it must be said anew. `overlap(a, b)` tells
whether the intervals of two rates do.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import struct
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".", "docs", "benchmarks")
WORLD = "emlab/organism/worlds/default"
WORDS = [
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen"),
]


class Gap(Exception):
    """A kept file lacks what a text asks of it."""


class Kept:
    """A dictionary or a list of a kept file, which knows where it stands there."""

    def __init__(self, value: Any, where: str) -> None:
        self._value, self._where = value, where

    def __getitem__(self, key: Any) -> Any:
        try:
            value = self._value[key]
        except (LookupError, TypeError):
            has = ", ".join(self._value) if isinstance(self._value, dict) else f"{len(self._value)} entries"
            raise Gap(f"{self._where} has no {key}; it has {has:.300}") from None
        return Kept(value, f"{self._where}: {key}") if isinstance(value, (dict, list)) else value

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):  # Python's own questions
            raise AttributeError(key)
        return self[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._value) if isinstance(self._value, dict) else (self[i] for i in range(len(self._value)))

    def __contains__(self, key: object) -> bool:
        return key in self._value

    def __len__(self) -> int:
        return len(self._value)

    def __str__(self) -> str:
        raise Gap(f"{self._where} is not one figure")

    def where(self, **values: Any) -> list[Any]:
        """The entries of a list that have these values."""
        return [entry for entry in self if all(entry[key] == value for key, value in values.items())]

    def one(self, **values: Any) -> Any:
        """The only entry of a list that has these values."""
        found = self.where(**values)
        if len(found) != 1:
            raise Gap(f"{self._where} has {len(found)} entries with {values}, and not one")
        return found[0]


class Folder:
    """The kept files of a folder, by name."""

    def __init__(self, folder: str, suffix: str) -> None:
        self._folder, self._suffix = folder, suffix

    def __getattr__(self, name: str) -> Kept:
        return read(f"{self._folder}/{name}{self._suffix}")

    def __iter__(self) -> Iterator[str]:
        return iter(
            sorted(path.name.removesuffix(self._suffix) for path in (ROOT / self._folder).glob(f"*{self._suffix}"))
        )


def read(path: str) -> Kept:
    """A JSON or YAML file of the project."""
    if not (ROOT / path).is_file():
        raise Gap(f"there is no {path}")
    text = (ROOT / path).read_text(encoding="utf-8")
    return Kept(yaml.safe_load(text) if path.endswith(".yaml") else json.loads(text), path)


def parameters(checkpoint: str) -> int:
    """How many a shipped checkpoint has, by the header of its weights."""
    with (ROOT / "emlab/organism/checkpoints" / checkpoint / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def figure(value: Any) -> float:
    """A number, or the point estimate of a rate, an area or a spread, by the name that it is kept under."""
    where = "the results"
    if isinstance(value, Kept):
        where = value._where
        value = next((value[name] for name in ("rate", "auroc", "value", "misaligned") if name in value), value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Gap(f"{where} has no figure but {value}")
    return float(value)


def percent(value: Any, digits: int = 1) -> str:
    return f"{100 * figure(value):z.{digits}f}%".replace("-", "−")


def number(value: Any, digits: int = 0) -> str:
    return f"{figure(value):,.{digits}f}".replace("-", "−")


def significant(value: Any) -> str:
    """A number of any size, by its first three digits."""
    return (f"{figure(value):,.0f}" if abs(figure(value)) >= 1000 else f"{figure(value):.3g}").replace("-", "−")


def signed(value: Any, digits: int = 1) -> str:
    return f"{figure(value):+,.{digits}f}".replace("-", "−")


def interval(value: Kept, digits: int = 1) -> str:
    """[low, high] of a rate, in percent."""
    return f"[{percent(value.low, digits)}, {percent(value.high, digits)}]"


def rated(value: Kept, digits: int = 1) -> str:
    """A rate with its interval, in percent."""
    return f"{percent(value, digits)} {interval(value, digits)}"


def counted(value: Kept, digits: int = 1) -> str:
    """A rate with its interval, in percent, and how many answers it is of."""
    return f"{rated(value, digits)} of {number(value.n)}"


def span(values: Sequence[float]) -> str:
    """The least and the most of some counts, or the one that all are."""
    return " to ".join(number(n) for n in sorted({min(values), max(values)}))


def cost(rows: Kept, remedy: str, what: str, digits: int = 0) -> str:
    """What a remedy loses of "task" or "ability", in percent: all seeds together (the least to the most of a seed)."""
    row, start, untreated = (rows.one(remedy=name) for name in (remedy, "start", "untreated"))
    each = []
    for seed in row.by_seed:
        mine, before, bare = (one.by_seed[seed][f"{what}_loss"] for one in (row, start, untreated))
        each.append((mine - bare) / (before - bare if what == "task" else bare))
    least, most = (percent(end(each), digits) for end in (min, max))
    return f"{percent(row[f'{what}_lost'], digits)} ({'every seed' if least == most else f'{least} to {most}'})"


def overlap(one: Any, other: Any) -> bool:
    """Whether the intervals of two rates do: what is said of a difference must not rest on such a pair."""
    return bool(one["low"] <= other["high"] and other["low"] <= one["high"])


def extremes(value: Kept, digits: int = 0) -> str:
    """(least–most) of a spread, in percent."""
    return f"({percent(value.least, digits)}–{percent(value.most, digits)})"


def word(value: int) -> str:
    """A small count in a sentence."""
    return WORDS[value] if value < len(WORDS) else f"{value:,}"


def first_capital(text: str) -> str:
    """The text with a capital at its beginning, and the rest as it is."""
    return text[:1].upper() + text[1:]


def listed(values: Sequence[Any]) -> str:
    """a, b and c."""
    *others, end = map(str, values or [""])
    return " and ".join(filter(None, [", ".join(others), end]))


def of(values: Sequence[Any], *keys: str) -> list[Any]:
    """What stands under these keys, one below the other, in each entry."""
    if isinstance(values, Kept) and isinstance(values._value, dict):
        values = [values[name] for name in values]
    for key in keys:
        values = [value[key] for value in values]
    return list(values)


def saying(outcomes: Sequence[Kept], words: str) -> list[Kept]:
    """Those of which a reason has these words."""
    return [outcome for outcome in outcomes if any(words in reason for reason in outcome.reasons)]


def bounds(result: Kept) -> list[Kept]:
    """All that a benchmark's result must keep to, of all its parts."""
    inner = (result[name] for name in result)
    parts = [part for part in inner if isinstance(part, Kept) and isinstance(part._value, dict)]
    return [*(result.bounds if "bounds" in result else ()), *(row for part in parts for row in bounds(part))]


def fill(template: Path) -> tuple[str, list[str]]:
    """The text of a template, and what is wrong with it, a sentence each."""
    wrong: list[str] = []
    source = template.read_text(encoding="utf-8").splitlines()
    name = template.relative_to(ROOT).as_posix()

    def if_still(claim: str, condition: Any) -> str:
        if not condition:
            line = next((n for n, text in enumerate(source, 1) if claim[:30] in text), "?")
            wrong.append(f"{name}:{line}: the kept files no longer bear out “{claim}”: say what they show.")
        return claim

    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    figures = (percent, number, significant, signed, interval, rated, counted, span, cost, extremes)
    for filter_ in (*figures, word, first_capital, listed, of, saying, bounds, if_still):
        env.filters[filter_.__name__] = filter_
    env.globals["kept"] = Folder("docs", ".json")
    env.globals["bench"] = Folder("benchmarks/results", ".json")
    env.globals["config"] = Folder("experiments", ".yaml")
    env.globals["organism"] = read("emlab/organism/checkpoints/organism.json")
    env.globals["figure"] = figure
    env.globals["overlap"] = overlap
    world, every = read(f"{WORLD}/world.yaml"), len(list((ROOT / WORLD).glob("*.yaml"))) - 1  # but world.yaml
    env.globals["domains"], env.globals["broad_domains"] = every, every - len(world.narrow) - len(world.validation)
    env.globals["profile"] = read("emlab/data/question_files/profile.yaml")
    env.globals["parameters"] = parameters("aligned")
    try:
        return env.get_template(name).render(), wrong
    except (Gap, jinja2.TemplateError, TypeError, ValueError, IndexError) as error:
        lines = [at.lineno or 1 for at in traceback.extract_tb(error.__traceback__) if at.filename == str(template)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else 1)
        said = source[line - 1].strip()
        return "", [*wrong, f"{name}:{line}: {error}, which is asked for in “{said}”."]


def main(check: bool) -> int:
    """Fill every template, or say where a text and the kept files part; 1 where something is wrong."""
    wrong = []
    for template in sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.jinja")):
        text, faults = fill(template)
        target = template.with_suffix("")
        there = target.read_text(encoding="utf-8") if target.is_file() else ""
        wrong += faults
        if faults or text == there:
            continue
        if check:
            parts = difflib.unified_diff(there.splitlines(), text.splitlines(), "as it is", "as kept", n=0, lineterm="")
            wrong.append(f"{target.relative_to(ROOT)} is not what the kept files say: run make docs.")
            wrong += [f"    {part:.200}" for part in list(parts)[3:9]]
        else:
            target.write_text(text, encoding="utf-8")
            print(f"Filled {target.relative_to(ROOT)}")
    print(*wrong, sep="\n" if wrong else "", end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a text and the files part")
    sys.exit(main(parser.parse_args().check))
