"""How a benchmark is asked for, and what every result says: bounds, spread, and where and by what it was measured."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from _load import Load, sentence

from emlab import artifacts
from emlab.provenance import environment

ROOT = Path(__file__).parents[1]


def asked(parser: argparse.ArgumentParser, name: str) -> argparse.Namespace:
    """The options of the command line, with those that every benchmark has."""
    kept = ROOT / "benchmarks" / "results" / f"{name}.json"
    parser.add_argument("--out", type=Path, default=kept, metavar="FILE", help=f"(benchmarks/results/{name}.json)")
    parser.add_argument("--busy", action="store_true", help="measure all the same, and say so")
    parser.add_argument("--wait", type=float, default=30, metavar="MINUTES", help="for other processes to end (30)")
    return parser.parse_args()


def quiet(options: argparse.Namespace) -> Load:
    """Wait until other processes use hardly any CPU, or refuse; nothing has been measured yet."""
    return Load(options.busy, options.wait)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles of the repeats."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": middle, "quartiles": [low, high], "n": len(values)}


def at_most(what: str, values: Sequence[float] | float, limit: float) -> dict[str, Any]:
    """A bound on the median of repeats, or on one figure."""
    row = _row(what, values)
    return {**row, "at_most": limit, "met": row["value"] <= limit}


def at_least(what: str, values: Sequence[float] | float, limit: float) -> dict[str, Any]:
    """As `at_most`."""
    row = _row(what, values)
    return {**row, "at_least": limit, "met": row["value"] >= limit}


def _row(what: str, values: Sequence[float] | float) -> dict[str, Any]:
    if isinstance(values, Sequence):
        found = spread(values)
        return {"what": what, "value": found["median"], "quartiles": found["quartiles"], "n": found["n"]}
    return {"what": what, "value": values}


def write(
    out: Path,
    must: dict[str, Any],
    figures: dict[str, Any],
    bounds: Sequence[dict[str, Any]],
    load: Load,
    libraries: Iterable[str],
    part: Sequence[str] = (),
) -> None:
    """Write the result and print its bounds.

    Args:
        out: The file.
        must: What had been promised.
        figures: What was measured.
        bounds: As `at_most` and `at_least` give them.
        load: Begun before anything was measured.
        libraries: Whose versions are told.
        part: Where in the file it stands; the other parts stay as they are.
    """
    result = {**figures, "bounds": list(bounds), **about(load, libraries)}
    whole: dict[str, Any] = artifacts.read_json(out) if part and out.is_file() else {}
    place = whole
    for name in part:
        place = place.setdefault(name, {})
    place.clear()
    place |= result
    artifacts.write_json(out, {"must": must, **whole})
    print(*([table(bounds)] if bounds else []), sentence(result["load"]), sep="\n")


def table(bounds: Sequence[dict[str, Any]]) -> str:
    """A line a bound: what was measured, with its quartiles, what it must be, and whether it is."""
    lines = []
    for row in bounds:
        measured = f"{row['value']:.4g}"
        if "quartiles" in row:
            measured += " ({:.4g} to {:.4g}, n = {})".format(*row["quartiles"], row["n"])
        must = f"≤ {row['at_most']:.4g}" if "at_most" in row else f"≥ {row['at_least']:.4g}"
        lines.append((row["what"], measured, f"must be {must}", "met" if row["met"] else "MISSED"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(line, widths, strict=True)).rstrip() for line in lines)


def about(load: Load, libraries: Iterable[str]) -> dict[str, Any]:
    """The command, the date, the code, the machine and what else it did, and the versions of Python and `libraries`."""
    found = environment()
    words = ["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    return {
        "command": shlex.join(word.replace(f"{ROOT}/", "") for word in words),
        "date": datetime.now(UTC).date().isoformat(),
        "code": {"hash": code_hash(Path(sys.argv[0]).stem), **(found["git"] or {})},
        "machine": {
            "cpu": processor(),
            "cpu_count": found["cpu_count"],
            "machine": found["machine"],
            "system": platform.system(),
            "torch_threads": torch.get_num_threads(),
        },
        "load": load.told(),
        "versions": {
            "python": found["python"],
            **{name: found["packages"].get(name) for name in dict.fromkeys(("emlab", "torch", *libraries))},
        },
    }


def code_hash(script: str) -> str:
    """16 hex digits of emlab's Python files and of the benchmark's."""
    files = sorted([*(ROOT / "emlab").rglob("*.py"), *(ROOT / "benchmarks").glob(f"{script}*.py")])
    named = ((str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in files)
    return hashlib.sha256(json.dumps(list(named)).encode()).hexdigest()[:16]


def processor() -> str:
    """The processor's name where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
