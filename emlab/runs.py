"""A run folder: what was asked (config.yaml), on what (environment.json), what happened (log.txt), a folder a stage.

A run that was stopped, by Ctrl-C or by a power cut, is found again by what it was asked and goes on: a stage's folder
appears whole, when the stage is done, or not at all. A stage that was made by other code is begun anew, unless it is to
be kept (`keep_stages`), and so is one whose files are no more what was written. From the shell a run that is finished
is not run again (`once`).
"""

import contextlib
import contextvars
import ctypes
import dataclasses
import datetime
import itertools
import os
import shutil
import sys
import threading
import time
import typing
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import filelock

from emlab import artifacts, config, provenance, records
from emlab.errors import EmlabError, visible
from emlab.provenance import Code, Ledger

T = TypeVar("T")

STATE, STAGE, RESULT, LOCK, LEDGER = "run.json", "stage.json", "result", ".lock", "processes.json"
"""Files in a run's folder: what identifies it, whether it is done and by which code; a stage's seconds, code and
checksums; what it found (a file or a folder); held while a process runs; what every process took."""


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
    other_code: dict[str, tuple[Code, ...]] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    """The stages that were kept although they come from other code than this process's, or build on what does."""
    _lock: filelock.BaseFileLock | None = dataclasses.field(default=None, compare=False, repr=False)
    _ledger: Ledger = dataclasses.field(default_factory=Ledger, compare=False, repr=False)

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
        for folder, state in _runs_of(key, name, root):
            if not state["finished"] and (lock := _locked(folder)):
                for left in folder.rglob(f".*{artifacts.PARTIAL}"):  # what a killed process was writing
                    shutil.rmtree(left, ignore_errors=True)
                    left.unlink(missing_ok=True)
                run = cls(name, folder, key, _lock=lock, _ledger=Ledger(folder / LEDGER))
                run.log(f"{name} goes on in {folder}")
                run._tell_other_code()
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
        run = cls(name, folder, key, _lock=_locked(folder), _ledger=Ledger(folder / LEDGER))
        artifacts.write_text(folder / "config.yaml", config.dump(settings))
        artifacts.write_json(folder / "environment.json", {**provenance.environment(), "inputs": dict(inputs or {})})
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
        if self._stands(name, folder / STAGE):
            self.log(f"{name}: done before", echo=False)
        else:
            self.log(name)
            with artifacts.storing(folder):
                folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                with artifacts.new_folder(folder, replace=True) as new:
                    work(new)
                    seconds = time.perf_counter() - begun
                    made = {"seconds": seconds, "codes": self._codes(), "files": _checksums(new)}
                    artifacts.write_json(new / STAGE, made)
            finally:
                self._ledger.write()
                _give_back()
        self.seconds[name] = artifacts.read_json(folder / STAGE)["seconds"]
        return read(folder)

    def workplace(self, name: str) -> Path:
        """A folder that its work fills bit by bit, and goes on with by itself; one of other code is made anew.

        `name` is as for `stage`.
        """
        folder = self.folder / name
        made = folder.with_name(f".{folder.name}.json")
        if not self._stands(name, made):
            shutil.rmtree(folder, ignore_errors=True)
            artifacts.write_json(made, {"codes": self._codes()})
        return folder

    def _stands(self, name: str, record: Path) -> bool:
        """Whether what was made is to be used again, by the code that its record names."""
        if not record.is_file():
            return False
        try:
            made = artifacts.read_json(record)
            damaged = [file for file, known in made.get("files", {}).items() if _changed(record.parent / file, known)]
        except (EmlabError, AttributeError):
            made, damaged = {}, [record.name]
        if damaged:
            self.log(f"{name}: {damaged[0]} is not what was written, or damaged; the stage begins anew.")
            return False
        others = _others(made)
        if others and _KEEPING.get():
            self.other_code[name] = others
        return not others or _KEEPING.get()

    def _codes(self) -> list[Code]:
        """Those behind a stage that is made now: this process's, and those of what was kept, on which it may build."""
        return [provenance.code(), *dict.fromkeys(itertools.chain(*self.other_code.values()))]

    def _tell_other_code(self) -> None:
        """One line on the stages that were made by other code, which are begun anew or kept."""
        stages = [artifacts.read_json(path) for path in self.folder.rglob(STAGE)]
        if not (old := [(others, stage["seconds"]) for stage in stages if (others := _others(stage))]):
            return
        count = f"{len(old)} of its {len(stages)} stages, {sum(seconds for _, seconds in old):.0f} s of work,"
        codes = _and(itertools.chain(*(others for others, _ in old)))
        anew = "They begin anew; to keep them, stop this and add --keep-stages (Python: emlab.runs.keep_stages)."
        then = "They are kept, and the report says so." if _KEEPING.get() else anew
        self.log(f"{count} come from other code ({codes}) than this ({provenance.code()}). {then}")

    def told(self) -> list[str]:
        """What must head the report as things stand now: the cautions, and which stages are of other code."""
        if not self.other_code:
            return list(self.cautions)
        own, *others = self._codes()
        line = f"CAUTION: stages come from other code ({_and(others)}) than the rest ({own}), or build on such: "
        return [*self.cautions, f"{line}{', '.join(self.other_code)}."]

    def processes(self) -> list[dict[str, Any]]:
        """What every process took that worked on this run by now (see `emlab.provenance.Ledger`)."""
        return self._ledger.processes()

    def finish(self) -> None:
        """Mark the run as done: it will not be gone on with."""
        self._ledger.write()
        artifacts.write_json(self.folder / STATE, {"key": self.key, "finished": True, "codes": self._codes()})
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
            print(visible(line), file=sys.stderr, flush=True)
        path = self.folder / "log.txt"
        # Appended, not written anew: a log must be readable up to the moment of a crash.
        with artifacts.storing(path), open(path, "a", encoding="utf-8") as file:
            file.write(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}  {visible(line)}\n")

    def __str__(self) -> str:
        return f"run {self.name} in {self.folder}"


class AlreadyDone(EmlabError):
    """A run of this name, config, inputs and code is finished."""

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
    done = [(folder, _others(state)) for folder, state in found if state["finished"]]
    for folder, others in done:
        if not others or _KEEPING.get():
            raise AlreadyDone(folder)
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
    elif done and len(done) == len(found):
        folder, others = done[0]
        print(
            f"{folder} was finished by other code ({_and(others)}) than this ({provenance.code()}): this is a new run; "
            "to be shown that one, stop this and add --keep-stages.",
            file=sys.stderr,
        )
    state.keys.add(key)


_KEEPING: contextvars.ContextVar[bool] = contextvars.ContextVar("keeping", default=False)


@contextlib.contextmanager
def keep_stages() -> Iterator[None]:
    """Inside the block a run goes on with stages that were made by other code; its report says which these are."""
    token = _KEEPING.set(True)
    try:
        yield
    finally:
        _KEEPING.reset(token)


def _checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in the folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): artifacts.sha256(path) for path in files}


def _changed(file: Path, checksum: str) -> bool:
    return not file.is_file() or artifacts.sha256(file) != checksum


def _give_back() -> None:
    """Give memory that is free back to the system, which glibc keeps otherwise, scattered among what is in use."""
    with contextlib.suppress(OSError, AttributeError):  # other systems have no such call
        ctypes.CDLL(None).malloc_trim(0)


def _others(made: Mapping[str, Any]) -> tuple[Code, ...]:
    """The codes other than this process's that a record names; earlier records named none."""
    codes = (Code(**code) for code in made.get("codes", [{"hash": "unknown"}]))
    return tuple(code for code in codes if code.hash != provenance.code().hash)


def _and(codes: Iterable[Code]) -> str:
    return " and ".join(map(str, dict.fromkeys(codes)))


def _runs_of(key: str, name: str, root: str | os.PathLike[str]) -> list[tuple[Path, dict[str, Any]]]:
    """The folders below `root` of the runs with this key, the latest first, and what is in each one's run.json."""
    folders = sorted(artifacts.place(root).glob(f"{name}-*"), reverse=True)
    states = [(folder, artifacts.read_json(folder / STATE)) for folder in folders if (folder / STATE).is_file()]
    return [(folder, state) for folder, state in states if state["key"] == key]


def _key(name: str, settings: Any, inputs: Mapping[str, str] | None) -> str:
    return artifacts.content_hash({"name": name, "config": settings, "inputs": inputs or {}})


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
