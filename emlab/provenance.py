"""Where a figure comes from: the code, its commit, the machine and its load, and what the processes took.

The code is known by a hash of emlab's own files, and of the packages that add to it (see `emlab.registry`). It does
not cover what those import from elsewhere: versions of libraries are told beside it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from emlab import __version__, artifacts
from emlab.registry import GROUP
from emlab.shipped import PACKED

PACKAGE = Path(__file__).resolve().parent

DECIDING = (".py", ".yaml", ".json", ".jinja", ".safetensors")
"""Endings of the files of a package that decide results."""

WEIGHTS_END = 2**16
"""Bytes at the end of a file of weights that stand for all of it: training moves every weight."""

LIBRARIES = ("torch", "transformers", "peft", "trl", "scikit-learn", "sae-lens")
"""Whose versions are said, where they are installed."""


@dataclasses.dataclass(frozen=True)
class Code:
    """The code that a stage was made by; two of one hash are the same."""

    hash: str
    """16 hex digits, the same for a checkout and for what was installed from it."""
    version: str | None = None
    """emlab's."""
    commit: str | None = None
    """Of emlab's checkout; None where it is none."""
    modified: bool | None = None
    """Whether files of the package differ from the commit."""

    def __str__(self) -> str:
        parts = [self.hash[:8]]
        if self.commit is not None:
            parts += [f"commit {self.commit[:10]}", *(["modified"] if self.modified else [])]
        elif self.version is not None:
            parts.append(f"emlab {self.version}")
        return ", ".join(parts)


@functools.cache
def code() -> Code:
    """This process's, as it lies on disk when it is first asked for."""
    found = commit() or {}
    return Code(code_hash({"emlab": PACKAGE, **_additions()}), __version__, **found)


def code_hash(packages: Mapping[str, Path]) -> str:
    """16 hex digits that depend on the names and contents of the files that decide results, and not on where they lie.

    Args:
        packages: Folders, or single files, by a name.
    """
    whole = hashlib.sha256()
    for name, place in sorted(packages.items()):
        for path in sorted(_deciding(place)):
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if path.endswith(".safetensors"):
                    file.seek(max(0, size - WEIGHTS_END))
                below = path.removeprefix(str(place)).replace(os.sep, "/")
                whole.update(f"{name}\0{below}\0{size}\0".encode() + file.read())
    return whole.hexdigest()[:16]


def _deciding(place: Path) -> Iterable[str]:
    if place.is_file():
        return [str(place)]
    below: list[str] = []
    for folder, folders, names in os.walk(place):
        # A checkout has what ships beside the code outside of the package.
        folders[:] = [name for name in folders if name not in ("__pycache__", PACKED.name)]
        below += [os.path.join(folder, name) for name in names if name.endswith(DECIDING)]
    return below


def _additions() -> dict[str, Path]:
    """The packages whose modules are named as entry points; one that is not there is told of when it is imported."""
    found: dict[str, Path] = {}
    for name in {entry.module.partition(".")[0] for entry in importlib.metadata.entry_points(group=GROUP)}:
        if (spec := importlib.util.find_spec(name)) is not None:
            places = spec.submodule_search_locations or filter(None, [spec.origin])
            found |= {f"{name} {number}": Path(place) for number, place in enumerate(places)}
    return found


def commit(package: Path = PACKAGE) -> dict[str, Any] | None:
    """The commit of the checkout that `package` lies in, and whether its files differ; None where it is installed."""
    if not (package.parent / ".git").exists():  # an outer repository would tell of other code
        return None
    ask = functools.partial(subprocess.run, cwd=package, capture_output=True, text=True, timeout=10, check=True)
    try:
        head = ask(["git", "rev-parse", "HEAD"]).stdout.strip()
        status = ask(["git", "status", "--porcelain", "--", "."]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": head, "modified": bool(status)}


# ------------------------------------------------------------------------------------------------- machine


def environment() -> dict[str, Any]:
    """What a run depends on besides its config: Python, platform, package versions, cores, commit, command line."""
    packages = {found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": usable_cpus(),
        "threads": {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")},
        "code": code().hash,
        "git": commit(),
        "command": command(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def command() -> str:
    """The command line of this process, without the places of this machine."""
    return without_places(shlex.join(["emlab", *sys.argv[1:]]))


def versions() -> dict[str, str]:
    """Of emlab, Python and those of `LIBRARIES` that are installed."""
    found = {"emlab": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """The processor, the cores that may be used, the memory in GB, the accelerator, the system; not whose it is."""
    memory = None
    with suppress(AttributeError, OSError, ValueError):  # Windows does not say
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    return {
        "cpu": _processor(),
        "cores": usable_cpus(),
        "memory_gb": memory,
        "gpu": _accelerator(),
        "system": f"{platform.system()} {platform.release()}",
    }


def usable_cpus() -> int:
    """How many cores this process may use: no more than the machine has, and often fewer in a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _accelerator() -> str | None:
    torch = sys.modules.get("torch")  # what has not been imported was not used
    if torch is None or not torch.accelerator.is_available():
        return None
    kind = torch.accelerator.current_accelerator().type
    named = getattr(torch.get_device_module(kind), "get_device_name", None)
    return str(named() if named else kind)


def load_average() -> float | None:
    """Of one minute; None where the system does not say."""
    with suppress(AttributeError, OSError):  # Windows
        return round(os.getloadavg()[0], 2)
    return None


# ------------------------------------------------------------------------------------------------- what it took


class Ledger:
    """What every process took that worked on something, kept in a file beside it.

    A process is entered from the moment it opens the ledger. One that is killed loses what came after its last
    `write`. The time of its children counts once they have ended.
    """

    def __init__(self, path: Path | None = None) -> None:
        """
        Args:
            path: The file, which earlier processes may have written; None keeps none.
        """
        self.path = path
        self._before: list[dict[str, Any]] = artifacts.read_json(path) if path is not None and path.is_file() else []
        self._wall, self._cpu, self._load = time.monotonic(), _cpu_seconds(), load_average()

    def write(self) -> None:
        """Enter what this process has taken by now."""
        if self.path is not None:
            artifacts.write_json(self.path, self.processes())

    def processes(self) -> list[dict[str, Any]]:
        """An entry a process, this one's last: `wall_seconds`, `cpu_seconds`, `load_average` at start and end."""
        now = {
            "wall_seconds": time.monotonic() - self._wall,
            "cpu_seconds": _cpu_seconds() - self._cpu,
            "load_average": {"start": self._load, "end": load_average()},
        }
        return [*self._before, now]


def _cpu_seconds() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


# ------------------------------------------------------------------------------------------------- as it is told


def provenance(
    settings: Any, processes: list[dict[str, Any]], other_code: Mapping[str, Sequence[Code]] | None = None
) -> dict[str, Any]:
    """What a kept result says of where it comes from.

    Args:
        settings: What was asked, a dataclass or a mapping; where the summary goes is no part of its hash.
        processes: As `Ledger.processes` gives them.
        other_code: The stages that were kept of other code, and which.
    """
    asked = {key: value for key, value in artifacts.plain(settings).items() if key != "summary"}
    return {
        "code": code(),
        "stages_of_other_code": dict(other_code or {}),
        "config": artifacts.content_hash(asked),
        "seeds": dict(_seeds(asked)),
        "machine": machine(),
        "processes": processes,
    }


def _seeds(asked: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Every seed of a config, by its dotted key."""
    for key, value in asked.items():
        if key == "seed" or key.endswith("seeds"):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _seeds(value, f"{prefix}{key}.")


def footer(told: Mapping[str, Any]) -> str:
    """`provenance` and `versions` as the small print of a report."""
    seeds = [
        f"{key.replace('_', ' ')} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in told["seeds"].items()
    ]
    here, loads = told["machine"], [process["load_average"] for process in told["processes"]]
    parts = [here["cpu"], f"{here['cores']} cores"]
    parts += [f"{here['memory_gb']:g} GB"] if here["memory_gb"] is not None else []
    parts += [part for part in (here["gpu"], here["system"]) if part]
    load = "; ".join(f"{one['start']:.1f} to {one['end']:.1f}" for one in loads if one["start"] is not None)
    said = [
        ", ".join(["emlab", *seeds]),
        f"code {told['code']}",
        f"config {told['config'][:8]}",
        ", ".join(parts),
        *([f"load {load}"] if load else []),
        ", ".join(f"{name} {version}" for name, version in versions().items()),
    ]
    return " · ".join(said)


def without_places(content: Any, settings: Any = None, *places: Path) -> Any:
    """`content`, plain values, without the places of this machine: in its texts, and in the keys of its mappings.

    What lies below the working folder is named from there, and what lies below the user's home from `~`. Of any other
    place the last name stays. Places are those two folders, emlab's own, those given, and every absolute path in the
    command line or in `settings`; other texts that look like a path, as in an answer, are left as they are.
    """
    working, home = Path.cwd(), Path.home()
    named = {working, home, PACKAGE, *places, *(place.resolve() for place in places)}
    asked = [*_texts(artifacts.plain(settings)), *(text for word in sys.argv[1:] for text in _PLACE.findall(word))]
    # Two parts at least: a mere "/no_think" is a text.
    named |= {place for place in map(Path, asked) if place.is_absolute() and len(place.parts) > 2}
    short = {str(place): _short(place, working, home) for place in named if len(place.parts) > 1}
    any_of = "|".join(re.escape(place) for place in sorted(short, key=len, reverse=True))
    found = re.compile(rf"(?<![\w.~/])({any_of})(?![\w-])([/\\]?)")

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return found.sub(lambda match: short[match[1]] + (match[2] if short[match[1]] else ""), value)
        if isinstance(value, Mapping):
            kept: dict[str, Any] = {}
            for key, item in value.items():
                name = clean(key)
                while name in kept:  # two places of one name
                    name += "'"
                kept[name] = clean(item)
            return kept
        return [clean(item) for item in value] if isinstance(value, list) else value

    return clean(content)


_PLACE = re.compile(r"""(?:^|[=,'"\[ ])((?:/|[A-Za-z]:\\)[^\s,'"\]]+)""")
"""An absolute path in a word of the command line, as in summary=/a/b or [/a/b,/a/c]."""


def _texts(content: Any) -> Iterable[str]:
    if isinstance(content, str):
        yield content
    for item in content.values() if isinstance(content, Mapping) else content if isinstance(content, list) else ():
        yield from _texts(item)


def _short(place: Path, working: Path, home: Path) -> str:
    if place == PACKAGE:
        return "emlab"
    if place.is_relative_to(working):
        return "" if place == working else place.relative_to(working).as_posix()
    return f"~/{place.relative_to(home).as_posix()}".removesuffix("/.") if place.is_relative_to(home) else place.name
