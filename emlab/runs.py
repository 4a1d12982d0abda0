"""A run folder: what was asked (config.yaml), on what (environment.json), what happened (log.txt), a folder a stage.

A run that was stopped, by Ctrl-C or by a power cut, is found again by what it was asked and goes on: a stage's folder
appears whole, when the stage is done, or not at all. From the shell a run that is finished is not run again (`once`).
"""

import contextlib
import contextvars
import dataclasses
import datetime
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
import threading
import time
import typing
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import filelock

from emlab import artifacts, config, records
from emlab.errors import EmlabError

T = TypeVar("T")

STATE, STAGE, RESULT, LOCK = "run.json", "stage.json", "result", ".lock"
"""Files in a run's folder: what identifies it and whether it is done; a stage's seconds; what it found (a file or a
folder); held while a process runs."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run and its folder."""

    name: str
    """What ran, for example the experiment's name."""
    folder: Path
    """`<root>/<name>-<YYYYmmdd-HHMMSS>`."""
    key: str = ""
    """Depends on the name, the config and the inputs: an unfinished run of the same key can be gone on with."""
    seconds: dict[str, float] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    """What each stage took, in the order in which they were asked for."""
    cautions: list[str] = dataclasses.field(default_factory=list, compare=False, repr=False)
    """What must head its report (see `caution`)."""
    _lock: filelock.BaseFileLock | None = dataclasses.field(default=None, compare=False, repr=False)

    @classmethod
    def resume(
        cls, name: str, settings: Any, root: str | os.PathLike[str] = "runs", inputs: Mapping[str, str] | None = None
    ) -> "Run":
        """The latest unfinished run of the same name, config and `inputs` below `root`, or a new one.

        A run that another process is working on is left to it. Inside `once` raises what `check_once` does.

        Args:
            name: What runs, for example the experiment's name.
            settings: Its config, a dataclass.
            root: The folder of all runs.
            inputs: What tells that files which the config only names are still the same, for example checksums.
        """
        check_once(name, settings, root, inputs)
        key = _key(name, settings, inputs)
        for folder, finished in _runs_of(key, name, root):
            if not finished and (lock := _locked(folder)):
                for left in folder.rglob(f".*{artifacts.PARTIAL}"):  # what a killed process was writing
                    shutil.rmtree(left, ignore_errors=True)
                    left.unlink(missing_ok=True)
                run = cls(name, folder, key, _lock=lock)
                run.log(f"{name} goes on in {folder}")
                return run
        return cls.create(name, settings, root, inputs)

    @classmethod
    def create(
        cls, name: str, settings: Any, root: str | os.PathLike[str] = "runs", inputs: Mapping[str, str] | None = None
    ) -> "Run":
        """Make the folder of a new run below `root`, with the resolved config (a dataclass) and the environment in it.

        A second run of the same name in the same second gets `-2` after its name, and so on. Raises EmlabError where
        the folder cannot be made.

        Args:
            name: What runs; without slashes.
            settings: Its config, a dataclass.
            root: The folder of all runs.
            inputs: As for `resume`.
        """
        if not name or Path(name).name != name:
            raise EmlabError(f"'{name}' cannot name a run; choose a name without slashes.")
        artifacts.check_writable(Path(root) / name)
        if also := getattr(settings, "summary", None):  # a copy that an experiment writes at its end
            artifacts.check_file(also)
        stem = f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
        folder = artifacts.place(root) / stem
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
                    folder = artifacts.place(root) / f"{stem}-{number}"
        key = _key(name, settings, inputs)
        run = cls(name, folder, key, _lock=_locked(folder))
        artifacts.write_text(folder / "config.yaml", config.dump(settings))
        artifacts.write_json(folder / "environment.json", {**environment(), "inputs": dict(inputs or {})})
        artifacts.write_json(folder / STATE, {"key": key, "finished": False})
        run.log(f"{name} begins", echo=False)
        return run

    def stage(self, name: str, work: Callable[[], T], kind: Any) -> T:
        """What `work` finds, a `kind`, as it reads from the stage's folder (see `emlab.records`).

        `work` is asked unless the stage is done already. The result is read back from disk in either case, so that a
        run that was stopped ends like one that was not. `name` may have parts ("finetune/insecure"), each a folder.
        """

        def write(folder: Path) -> None:
            records.keep(work(), kind, folder / RESULT)

        return self.fill(name, write, lambda folder: typing.cast(T, records.kept(kind, folder / RESULT)))

    def fill(self, name: str, work: Callable[[Path], object], read: Callable[[Path], T]) -> T:
        """The same, where the folder has a form of its own: `work` fills it, and `read` reads it."""
        folder, begun = self.folder / name, time.perf_counter()
        if (folder / STAGE).is_file():
            self.log(f"{name}: done before", echo=False)
        else:
            self.log(name)
            with artifacts.storing(folder):
                folder.parent.mkdir(parents=True, exist_ok=True)
            with artifacts.new_folder(folder, replace=True) as new:
                work(new)
                artifacts.write_json(new / STAGE, {"seconds": time.perf_counter() - begun})
        self.seconds[name] = artifacts.read_json(folder / STAGE)["seconds"]
        return read(folder)

    def finish(self) -> None:
        """Mark the run as done: it will not be gone on with."""
        artifacts.write_json(self.folder / STATE, {"key": self.key, "finished": True})
        if self._lock is not None:
            self._lock.release()

    def caution(self, line: str) -> None:
        """Log what must also stand at the head of the report; the same line once."""
        if line not in self.cautions:
            self.cautions.append(line)
            self.log(line)

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


class AlreadyDone(EmlabError):
    """A run of this name, config, inputs and version of emlab is finished."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"already done at {folder}.")
        self.folder = folder


@dataclasses.dataclass(frozen=True)
class _Once:
    root: Path
    held: contextlib.ExitStack
    keys: set[str]
    own: Path | None


_ONCE: contextvars.ContextVar[_Once | None] = contextvars.ContextVar("once", default=None)


@contextlib.contextmanager
def once(root: str | os.PathLike[str], own: Path | None = None) -> Iterator[None]:
    """Inside the block no run is begun below `root` that is finished there, or that another process is running.

    Such a run is met with what `check_once` raises. Runs below other roots, as stages of a run may begin them, are not
    looked at. `own` is the folder of a run whose own config is run: where it was another run, which the files and
    the version of emlab make it, that is said.
    """
    with contextlib.ExitStack() as held:
        token = _ONCE.set(_Once(artifacts.place(root), held, set(), own))
        try:
            yield
        finally:
            _ONCE.reset(token)


def check_once(
    name: str, settings: Any, root: str | os.PathLike[str] = "runs", inputs: Mapping[str, str] | None = None
) -> None:
    """Inside `once`: AlreadyDone where this run is finished below `root`, EmlabError where it is being run.

    `Run.resume` asks this itself; an experiment that loads models before it may ask earlier.

    Args:
        name: As for `Run.resume`.
        settings: As for `Run.resume`.
        root: As for `Run.resume`; below others nothing is looked at.
        inputs: As for `Run.resume`.
    """
    state, key = _ONCE.get(), _key(name, settings, inputs)
    if state is None or artifacts.place(root) != state.root or key in state.keys:
        return
    found = _runs_of(key, name, root)
    if done := [folder for folder, finished in found if finished]:
        raise AlreadyDone(done[0])
    busy = [folder for folder, _ in found if _locked(folder) is None]
    try:
        # Two that begin in the same moment have no folder yet.
        state.held.enter_context(artifacts.claimed(artifacts.place(root) / f"{name}-{key}"))
    except EmlabError:
        busy = busy or [artifacts.place(root)]
    if busy:
        raise EmlabError(
            f"{name} is being run with this config in {busy[0]} by another process; wait for it, or add --again to run "
            "it beside that."
        )
    if state.own is not None and artifacts.read_json(state.own / STATE)["key"] != key:
        print(
            f"{state.own} was run on files that have changed since, or by another version of emlab: this is a new run.",
            file=sys.stderr,
        )
    state.keys.add(key)


def _runs_of(key: str, name: str, root: str | os.PathLike[str]) -> list[tuple[Path, bool]]:
    """The folders below `root` of the runs with this key, the latest first, and whether each is finished."""
    folders = sorted(artifacts.place(root).glob(f"{name}-*"), reverse=True)
    states = [(folder, artifacts.read_json(folder / STATE)) for folder in folders if (folder / STATE).is_file()]
    return [(folder, state["finished"]) for folder, state in states if state["key"] == key]


def _key(name: str, settings: Any, inputs: Mapping[str, str] | None) -> str:
    from emlab import __version__

    return artifacts.content_hash({"name": name, "config": settings, "inputs": inputs or {}, "emlab": __version__})


_HELD: dict[Path, tuple["weakref.ref[filelock.BaseFileLock]", threading.Thread]] = {}
"""The folders that this process holds, and the thread that does."""


def _locked(folder: Path) -> filelock.BaseFileLock | None:
    """What holds the folder until this process ends or lets it go; None where another run does.

    A run that was stopped by an exception is held for as long as somebody keeps its traceback, as a notebook does with
    the last one: the thread that held it is here again, and takes it over.
    """
    place, me = folder.resolve(), threading.current_thread()
    if place in _HELD:
        reference, thread = _HELD[place]
        held = reference()
        if held is not None and held.is_locked and (thread is me or not thread.is_alive()):
            _HELD[place] = reference, me
            return held
    lock = filelock.FileLock(place / LOCK, blocking=False, thread_local=False)
    try:
        lock.acquire()
    except (OSError, NotImplementedError):  # another holds it, or the file system knows no locks
        return None
    _HELD[place] = weakref.ref(lock), me
    return lock


def fingerprint(path: str | os.PathLike[str]) -> str:
    """What tells that a file or folder is still the same: the names, sizes and times of change of its files."""
    path = artifacts.place(path)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(file.relative_to(path)), file.stat()) for file in files if file.is_file()]
    return artifacts.content_hash([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


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
