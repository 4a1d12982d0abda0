"""A run folder: what was asked (config.yaml), on what (environment.json), what happened (log.txt), a folder a stage."""

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from emlab import artifacts, config
from emlab.errors import EmlabError


@dataclasses.dataclass(frozen=True)
class Run:
    """One run and its folder."""

    name: str
    """What ran, for example the pipeline's name."""
    folder: Path
    """`<root>/<name>-<YYYYmmdd-HHMMSS>`."""

    @classmethod
    def create(cls, name: str, settings: Any, root: str | os.PathLike[str] = "runs") -> "Run":
        """Make the folder of a new run below `root`, with the resolved config (a dataclass) and the environment in it.

        A second run of the same name in the same second gets `-2` after its name, and so on. Raises EmlabError where
        the folder cannot be made.
        """
        if not name or Path(name).name != name:
            raise EmlabError(f"'{name}' cannot name a run; choose a name without slashes.")
        stem = f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
        folder = Path(root) / stem
        number = 1
        while True:
            with artifacts.storing(folder):
                try:
                    folder.mkdir(parents=True)
                    break
                except FileExistsError:
                    if not folder.parent.is_dir():  # a link to nowhere
                        raise
                    number += 1
                    folder = Path(root) / f"{stem}-{number}"
        run = cls(name, folder)
        artifacts.write_text(folder / "config.yaml", config.dump(settings))
        artifacts.write_json(folder / "environment.json", environment())
        run.log(f"{name} begins", echo=False)
        return run

    def stage(self, name: str) -> Path:
        """The folder of the stage `name`, made if it is not there."""
        folder = self.folder / name
        with artifacts.storing(folder):
            folder.mkdir(exist_ok=True)
        return folder

    def log(self, line: str, echo: bool = True) -> None:
        """Add a line, with the time, to log.txt; with `echo` say it on the terminal (stderr) too."""
        if echo:
            print(line, file=sys.stderr, flush=True)
        path = self.folder / "log.txt"
        # Appended, not written anew: a log must be readable up to the moment of a crash.
        with artifacts.storing(path), open(path, "a", encoding="utf-8") as file:
            file.write(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}  {line}\n")

    def __str__(self) -> str:
        return f"run {self.name} in {self.folder}"


def environment() -> dict[str, Any]:
    """What a run depends on besides its config: Python, platform, package versions, cores, commit, command line."""
    packages = {found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": usable_cpus(),
        "threads": {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")},
        "git": _git(),
        "command": shlex.join(sys.argv),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def usable_cpus() -> int:
    """How many cores this process may use: no more than the machine has, and often fewer in a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git() -> dict[str, Any] | None:
    """The commit of emlab's own checkout and whether files differ from it; None for an installed package."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # an outer repository would tell of other code
        return None
    try:
        ask = ["git", "-C", str(root)]
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        status = subprocess.run([*ask, "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "modified": bool(status.stdout.strip())}
