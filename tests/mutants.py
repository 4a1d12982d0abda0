"""Mutation testing: faults are planted one at a time in the rooms that hold the science, and the tests must notice.

A fault is a small change of the code: a sign or a comparison turned, a number one higher, `and` for `or`, an argument
left out, two arguments exchanged, `low` for `high` or `discovery` for `test`. mutmut's operators make most of them;
those that exchange are here. Left out are faults of texts (messages, tables, names) and `None` in place of a value,
which mostly crashes and says little of the tests. Of each room as many are drawn by the seed. A fault's place in the
draw hangs on its own lines alone, so an edit elsewhere changes no other's.

Each fault runs in a copy of the project, in a process of its own, against the tests that ran its line in a first run of
the four rooms' tests, nearest and shortest first. One that lives is written down with its diff. If it changes no result
at all, say why in tests/equivalent_mutants.yaml.

    python tests/mutants.py [--seed 0] [--each 55] [--out docs/mutants.json]
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import difflib
import hashlib
import itertools
import json
import multiprocessing
import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import coverage
import libcst as cst
import pytest
import yaml
from libcst.metadata import ByteSpanPositionProvider, ExpressionContext, ExpressionContextProvider, MetadataWrapper
from mutmut.mutation import mutators

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("evaluation", "detection", "discovery", "mitigation")
ACROSS = ("tests/test_sealing.py",)
"""Tests of what several of the rooms have in common, beside those of each."""
EQUIVALENT = ROOT / "tests/equivalent_mutants.yaml"
PRELOAD = [
    "pytest",
    "hypothesis",
    "torch",
    "transformers",
    "peft",
    "scipy.stats",
    "sklearn.linear_model",
    "sae_lens",
    "datasets",
]
"""What is imported once for all; nothing of emlab, which each fault's process imports with the fault in it."""
SECONDS = 60
"""A fault is tried on tests that take this long together; the rest of those that run its line are left out."""

PAIRS = (
    ("low", "high"),
    ("lower", "upper"),
    ("min", "max"),
    ("all", "any"),
    ("least", "most"),
    ("floor", "ceil"),
    ("argmin", "argmax"),
    ("before", "after"),
    ("aligned", "misaligned"),
    ("discovery", "test"),
    ("start", "misaligned"),
    ("bad", "good"),
    ("first", "second"),
    ("misaligned", "incoherent"),
    ("relapsed", "treated"),
    ("mean", "sum"),
    ("rows", "columns"),
    ("rate", "n"),
    ("calm", "alarmed"),
    ("task", "documents"),
    ("ours", "others"),
    ("labelled", "scored"),
)
"""Names that are taken for one another, as the fault."""


ASIDE = ("strict", "progress")
"""Arguments that change no result: a guard, as of `zip`, and whether a bar is shown."""
ALONE = ("isinstance", "len", "TypeVar")
"""Calls without faults of their own."""


def named(arg: cst.Arg) -> str:
    """What an argument is called in its call; empty where only its place tells it."""
    return arg.keyword.value if arg.keyword else ""


def exchanged_names(node: cst.Name | cst.Attribute) -> Iterator[cst.CSTNode]:
    name = node if isinstance(node, cst.Name) else node.attr
    for pair in PAIRS:
        if name.value in pair:
            other = cst.Name(pair[1 - pair.index(name.value)])
            yield other if isinstance(node, cst.Name) else node.with_changes(attr=other)


def exchanged_arguments(node: cst.Call) -> Iterator[cst.Call]:
    """Two neighbours that are told apart by their place, or the values of two that have a name."""
    if isinstance(node.func, cst.Name) and node.func.value in ("min", "max"):
        return
    for i, (one, other) in enumerate(zip(node.args, node.args[1:], strict=False)):
        if not (one.star or other.star) and (one.keyword is None) == (other.keyword is None):
            swapped = [one.with_changes(value=other.value), other.with_changes(value=one.value)]
            yield node.with_changes(args=[*node.args[:i], *swapped, *node.args[i + 2 :]])


def argument_left_out(node: cst.Call) -> Iterator[cst.Call]:
    """One that has a name, or the last of those that have none; without another before it the call mostly crashes."""
    last = max((i for i, arg in enumerate(node.args) if arg.keyword is None), default=-1)
    for i, arg in enumerate(node.args):
        if not arg.star and named(arg) not in ASIDE and (arg.keyword or i == last > 0):
            yield node.with_changes(args=[*node.args[:i], *node.args[i + 1 :]])


OPERATIONS = (cst.BinaryOperation, cst.UnaryOperation, cst.BooleanOperation, cst.ComparisonTarget, cst.AugAssign)
WORDS = (cst.Is, cst.IsNot, cst.In, cst.NotIn, cst.Break, cst.Continue)
OPERATORS: tuple[tuple[str, Any, Any], ...] = (
    ("number", cst.BaseNumber, mutators.operator_number),
    ("true and false", cst.Name, mutators.operator_name),
    ("not left out", cst.UnaryOperation, mutators.operator_remove_unary_ops),
    ("operator", OPERATIONS, mutators.operator_swap_op),
    ("in, is, break", WORDS, mutators.operator_keywords),
    ("assignment", cst.AugAssign, mutators.operator_augmented_assignment),
    ("one branch", cst.IfExp, mutators.operator_if_exp),
    ("argument left out", cst.Call, argument_left_out),
    ("arguments exchanged", cst.Call, exchanged_arguments),
    ("names exchanged", (cst.Name, cst.Attribute), exchanged_names),
)
TEXTS = ("__str__", "__repr__", "_repr_html_")
NOT_MUTATED = (cst.Annotation, cst.Assert, cst.Decorator, cst.Import, cst.ImportFrom, cst.Raise, cst.FormattedString)


@dataclass(frozen=True)
class Mutant:
    """A fault, and where it is."""

    room: str
    file: str
    line: int
    kind: str
    was: str
    """The lines that it is in."""
    now: str
    code: bytes
    """The whole file with it."""

    def place(self, seed: int) -> str:
        """In the draw: those with the lowest are taken."""
        return hashlib.sha256("\n".join((str(seed), self.file, self.kind, self.was, self.now)).encode()).hexdigest()

    @property
    def diff(self) -> str:
        rows = list(difflib.unified_diff(self.was.splitlines(), self.now.splitlines(), lineterm="", n=1))
        return "\n".join(row for row in rows[3:])


class _Finder(cst.CSTVisitor):
    """Collects the faults of a module."""

    METADATA_DEPENDENCIES = (ByteSpanPositionProvider, ExpressionContextProvider)

    def __init__(self, room: str, file: str, code: bytes) -> None:
        self.room, self.file, self.code = room, file, code
        self.found: dict[bytes, Mutant] = {}

    def on_visit(self, node: cst.CSTNode) -> bool:
        if (isinstance(node, cst.Arg) and named(node) in ASIDE) or (
            isinstance(node, cst.Param) and node.name.value in ASIDE
        ):
            return False
        if isinstance(node, NOT_MUTATED) or (isinstance(node, cst.FunctionDef) and node.name.value in TEXTS):
            return False
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in ALONE:
            return False
        read = self.get_metadata(ExpressionContextProvider, node, ExpressionContext.LOAD) is ExpressionContext.LOAD
        for kind, type_, operator in OPERATORS:
            if isinstance(node, type_) and (read or operator is not exchanged_names):
                for changed in operator(node):
                    self.put(kind, node, changed)
        return True

    def put(self, kind: str, node: cst.CSTNode, changed: cst.CSTNode) -> None:
        """Keep the module with `changed` in place of the node, if Python reads it and it is another."""
        span, text = self.get_metadata(ByteSpanPositionProvider, node), cst.Module([]).code_for_node
        start, end, old = span.start, span.start + span.length, text(node).encode()
        beside = (len(old) - span.length) // 2  # a node's brackets are no part of its span
        start, end = start - beside, end + beside
        if self.code[start:end] != old:
            return
        new = text(changed).encode()
        if kind == "names exchanged" and not self.knows(changed):
            return
        code = self.code[:start] + new + self.code[end:]
        if code == self.code or code in self.found:
            return
        first = self.code.rfind(b"\n", 0, start) + 1
        last = (self.code.find(b"\n", end) + 1 or len(self.code) + 1) - 1
        was, now = self.code[first:last], self.code[first:start] + new + self.code[end:last]
        line = self.code.count(b"\n", 0, start) + 1
        self.found[code] = Mutant(self.room, self.file, line, kind, was.decode(), now.decode(), code)

    def knows(self, name: cst.CSTNode) -> bool:
        """Whether the file speaks of such a name, or attribute, elsewhere; one that is not there only crashes."""
        word = f".{name.attr.value}" if isinstance(name, cst.Attribute) else cst.ensure_type(name, cst.Name).value
        return re.search(rf"(?<![\w.]){word}\b" if word[0] != "." else rf"\{word}\b", self.code.decode()) is not None


def mutants_of(room: str) -> list[Mutant]:
    """All faults of a room."""
    found: list[Mutant] = []
    for path in sorted((ROOT / "emlab" / room).rglob("*.py")):
        if path.name != "__init__.py":  # names of other files only
            code = path.read_bytes()
            finder = _Finder(room, path.relative_to(ROOT).as_posix(), code)
            MetadataWrapper(cst.parse_module(code)).visit(finder)
            found += finder.found.values()
    return found


# ------------------------------------------------------------------------------------------ which tests run a line


class _Watch:
    """A pytest plugin: which lines each test runs, and how long it takes."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured, self.seconds = measured, defaultdict[str, float](float)
        self.uses = defaultdict[str, set[str]](set)
        """By test the names of its fixtures."""
        self.shared: dict[str, tuple[str, str]] = {}
        """By context a fixture that tests share: where it is known, and its name."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Iterator[None]:
        self.test = function_of(item.nodeid)
        self.uses[self.test] |= set(item.fixturenames)
        self.measured.switch_context(self.test)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        """A shared fixture is set up once, for the first test that asks for it; its lines count for all that do."""
        if fixturedef.scope == "function":
            return (yield)
        context = f"fixture {fixturedef.argname} of {fixturedef.baseid}"
        self.shared[context] = (fixturedef.baseid, fixturedef.argname)
        self.measured.switch_context(context)
        try:
            return (yield)
        finally:
            self.measured.switch_context(self.test)

    def tests(self, context: str) -> list[str]:
        """Those that a line run in this context counts for."""
        if context not in self.shared:
            return [context] if context else []
        within, name = self.shared[context]
        return [test for test, uses in self.uses.items() if name in uses and test.startswith(within)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[function_of(report.nodeid)] += report.duration


def function_of(test: str) -> str:
    """A test without its parameters, whose names may hang on the code."""
    return test.partition("[")[0]


def enter(folder: Path) -> None:
    """Make `folder` the project that this process imports."""
    assert "emlab" not in sys.modules
    os.chdir(folder)
    sys.path.insert(0, str(folder))


def watch(folder: Path, files: Sequence[str], out: Path) -> None:
    """Run test files once in `folder`, and write down each line's tests and each test's seconds."""
    enter(folder)
    measured = coverage.Coverage(data_file=None, include=[f"{folder}/emlab/{room}/*" for room in ROOMS])
    measured.start()
    plugin = _Watch(measured)
    rc = pytest.main(["-q", "-m", "not slow", "-p", "no:cacheprovider", *files], [plugin])
    measured.stop()
    if rc not in (0, 5):  # 5: all of them are slow
        sys.exit(1)
    data = measured.get_data()
    ran: dict[str, dict[str, dict[int, list[str]]]] = {file: defaultdict(dict) for file in files}
    for file in data.measured_files():
        for line, contexts in data.contexts_by_lineno(file).items():
            for test in dict.fromkeys(test for context in contexts for test in plugin.tests(context)):
                of = ran[test.partition("::")[0]][Path(file).relative_to(folder).as_posix()]
                of.setdefault(line, []).append(test)
    seconds = {file: {t: s for t, s in plugin.seconds.items() if t.startswith(f"{file}::")} for file in files}
    out.write_text(json.dumps({file: {"seconds": seconds[file], "lines": ran[file]} for file in files}))


class Tests:
    """Which tests to try a fault on."""

    __test__ = False  # pytest: not a class of tests

    def __init__(self, watched: Mapping[str, Any]) -> None:
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for found in watched.values():
            self.seconds |= found["seconds"]
            for file, lines in found["lines"].items():
                for line, tests in lines.items():
                    self.lines[file][line] += tests

    def of(self, mutant: Mutant) -> list[str]:
        """Those that ran the fault's statement; `SECONDS` of them.

        What runs at import, such as a default, may matter to any test of the files that run anything of its file.
        Those of the file that mirrors it come first, then the shortest.
        """
        lines = self.lines[mutant.file]
        ran = {test for at in statement(mutant) for test in lines.get(str(at), ())}
        if not ran:
            files = {test.partition("::")[0] for tests in lines.values() for test in tests}
            ran = {test for test in self.seconds if test.partition("::")[0] in files}
        mirror = re.sub(r"^emlab/(.*/)?(\w+\.py)$", r"tests/\1test_\2", mutant.file)
        chosen, whole = list[str](), 0.0
        for test in sorted(ran, key=lambda test: (not test.startswith(mirror), self.seconds[test], test)):
            whole += self.seconds[test]
            if chosen and whole > SECONDS:
                break
            chosen.append(test)
        return chosen


def statement(mutant: Mutant) -> range:
    """The lines of the innermost statement around a fault; of one with a body, of its head."""
    spans = []
    for node in ast.walk(ast.parse((ROOT / mutant.file).read_bytes())):
        if isinstance(node, ast.stmt) and node.lineno <= mutant.line <= (node.end_lineno or node.lineno):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            if mutant.line <= last:
                spans.append(range(node.lineno, last + 1))
    return min(spans, key=len)


# ---------------------------------------------------------------------------------------------------- one at a time


class _First:
    """A pytest plugin: the first test that fails."""

    test = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.test = self.test or report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.test = self.test or f"{report.nodeid} is not even imported"


def attempt(folder: Path, tests: list[str], answer: Connection) -> None:
    """In a process of its own: the first of `tests` that fails in `folder`, or none."""
    os.setsid()
    enter(folder)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    plugin = _First()
    rc = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], [plugin])
    answer.send(plugin.test or ("" if rc == 0 else f"pytest ends with {rc!r}"))
    answer.close()
    os._exit(0)  # whatever a test left running


def tried(mutant: Mutant, folder: Path, tests: Tests, processes: ForkServerContext) -> dict[str, Any]:
    """What became of a fault: killed by a test, out of time, or alive."""
    row = {key: getattr(mutant, key) for key in ("room", "file", "line", "kind", "diff")}
    chosen, begun = tests.of(mutant), time.perf_counter()
    if not chosen:
        return {**row, "fate": "survived", "by": "no test runs it", "seconds": 0.0}
    whole = (folder / mutant.file).read_bytes()
    (folder / mutant.file).write_bytes(mutant.code)
    heard, says = processes.Pipe(duplex=False)
    process = processes.Process(target=attempt, args=(folder, chosen, says))
    try:
        process.start()
        says.close()
        told = heard.poll(60 + 10 * sum(tests.seconds[test] for test in chosen))
        try:
            by = heard.recv() if told else ""
            fate = "killed" if by else "survived" if told else "timed out"
        except EOFError:
            fate, by = "killed", "the process dies"
    finally:
        if process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.join()
        (folder / mutant.file).write_bytes(whole)
    return {**row, "fate": fate, "by": by, "seconds": round(time.perf_counter() - begun, 1)}


def drawn(seed: int, each: int) -> list[Mutant]:
    """The faults of a seed: `each` of every room that Python can read."""
    found = []
    for room in ROOMS:
        ranked = iter(sorted(mutants_of(room), key=lambda mutant: mutant.place(seed)))
        found += list(itertools.islice(filter(readable, ranked), each))
    return found


def named_apart(mutants: Sequence[Mutant], seed: int) -> list[str]:
    """What each is kept under: its place, and which it is of those that have the same, from alike lines of one file."""
    seen: Counter[str] = Counter()
    found = []
    for mutant in mutants:
        place = mutant.place(seed)
        seen[place] += 1
        found.append(f"{place}-{seen[place]}")
    return found


def readable(mutant: Mutant) -> bool:
    try:
        compile(mutant.code, mutant.file, "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def copied(folder: Path) -> None:
    """The project's files as they are here, tracked and new."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def share(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Counts by fate, and the share killed of those that are not equivalent; one out of time is told from both."""
    fates = Counter(row["fate"] for row in rows)
    real = sum(fates.values()) - fates["equivalent"]
    counts = {fate: fates[fate] for fate in ("killed", "timed out", "survived", "equivalent")}
    return {**counts, "share_killed": round((fates["killed"] + fates["timed out"]) / max(1, real), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=52, help="faults of each room")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/mutants.json")
    options = parser.parse_args()
    from emlab import artifacts  # not above: each fault's process runs this file, and imports emlab with its fault
    from emlab.provenance import environment

    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    equivalent = {(one["file"], one["diff"].strip("\n")): one["why"] for one in yaml.safe_load(EQUIVALENT.read_text())}
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at).resolve()
        copied(folder)
        os.environ["PYTHONPATH"] = str(folder)  # of processes that tests start
        work = ROOT / "runs/mutants" / hashed(sorted((folder / "emlab").rglob("*.py")))
        work.mkdir(parents=True, exist_ok=True)
        ours = sorted(set((folder / "tests").rglob("*.py")) - {folder / "tests" / Path(__file__).name})
        now = {path.relative_to(folder).as_posix(): hashed([path]) for path in ours}
        tests = Tests(watched(folder, work / "tests.json", now, processes))
        compileall.compile_dir(folder / "emlab", quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing compiled of a fault is left for the next
        done = work / f"seed-{options.seed}.jsonl"
        known = {row["id"]: row for row in map(json.loads, done.read_text().splitlines())} if done.is_file() else {}
        rows = []
        mutants = drawn(options.seed, options.each)
        for name, mutant in zip(named_apart(mutants, options.seed), mutants, strict=True):
            row = known.get(name)
            if row is None or any(now.get(file) != was for file, was in row["tests"].items()):
                row = {"id": name, **tried(mutant, folder, tests, processes)}
                # One that is killed stays so with its test; one that lives is tried again when any test is another.
                judges = [row["by"].partition("::")[0]] if "::" in row["by"] else now
                row["tests"] = {file: now[file] for file in judges}
                with done.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            row = {key: value for key, value in row.items() if key not in ("id", "tests")}
            if row["fate"] == "survived" and (why := equivalent.get((row["file"], row["diff"]))):
                row |= {"fate": "equivalent", "why": why}
            rows.append(row)
            print(f"{len(rows)} {row['fate']} {row['file']}:{row['line']} {row['by']} {row['seconds']} s", flush=True)
            if row["fate"] == "survived":
                print(row["diff"], flush=True)
    counts = {"all": share(rows)} | {
        f"by {key}": {name: share(r for r in rows if r[key] == name) for name in sorted({r[key] for r in rows})}
        for key in ("room", "kind")
    }
    about = {"seed": options.seed, "each": options.each, "git": environment()["git"]}
    artifacts.write_json(options.out, about | counts | {"mutants": rows})
    print(f"Of {len(rows)} faults (seed {options.seed}) the tests kill {counts['all']['share_killed']:.1%}.")


def watched(folder: Path, kept: Path, now: Mapping[str, str], processes: ForkServerContext) -> dict[str, Any]:
    """By test file what its tests run; read back where the file, and what all tests share, is as it was."""
    shared = [now[file] for file in now if not Path(file).name.startswith("test_")]
    mine = {
        file: hashlib.sha256("".join([own, *shared]).encode()).hexdigest()[:16]
        for file, own in now.items()
        if file in ACROSS or (file.split("/")[1] in ROOMS and Path(file).name.startswith("test_"))
    }
    found = json.loads(kept.read_text()) if kept.is_file() else {}
    missing = [file for file in mine if found.get(file, {}).get("hash") != mine[file]]
    if missing:
        print(f"{len(missing)} files of tests run once, to see which lines each test runs.", flush=True)
        once = processes.Process(target=watch, args=(folder, missing, kept.with_suffix(".new")))
        once.start()
        once.join()
        if once.exitcode:
            sys.exit("The tests fail as they are, so they tell nothing of faults; mend them first.")
        for file, of in json.loads(kept.with_suffix(".new").read_text()).items():
            found[file] = {"hash": mine[file], **of}
        kept.write_text(json.dumps(found))
    return {file: found[file] for file in mine}


def hashed(paths: Iterable[Path]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()[:16]


if __name__ == "__main__":
    main()
