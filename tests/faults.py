"""Faults from outside, one at a time, while the lab's main job runs: it must end as if nothing had been, or say why.

The main job is `emlab run experiments/persona_features.yaml` on a small random model, in processes of its own. Into it
come: kill -9 at random moments, a full disk, a disk that turns read-only, damaged files of every kind, a second process
on the same folder, a clock that goes backwards, a limit on memory, and a judge that hangs, answers garbage, is busy for
a minute, or drops the connection in the middle of its reply.

After each the fault is taken away and the same command is given again. A case is well where that ends with the figures
of a run without any fault, and where the fault itself passed unnoticed, ended the process, or was said in one sentence.

    python tests/faults.py [--seed 0] [--only killed memory] [--out docs/faults.json]       (make faults)

Cases that this machine does not let one try (mounting takes root; `faketime` may be missing) are listed as not tried.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from emlab import artifacts, provenance  # noqa: E402
from tests.conftest import ChatServer  # noqa: E402
from tests.experiments.persona_features.test_run import APART, SMALL, YAML, save_random_model  # noqa: E402

LONGEST = 900
"""Seconds that one process may take; one that takes longer hangs, which no fault may bring about."""
KILLS, DISKS, LIMITS = 20, 6, 6


class NotTried(Exception):
    """This machine does not let one try it."""


@dataclass(frozen=True)
class Tried:
    """One fault."""

    case: str
    what: str
    """Where or when it struck."""
    then: str
    """What the process did: "went on", "was killed", "said why", "crashed", "hung"."""
    said: str
    """Its sentence."""
    same: bool
    """Whether the same command, without the fault, then ended with the figures of an undisturbed run."""

    @property
    def well(self) -> bool:
        return self.same and self.then in ("went on", "was killed", "said why")


@dataclass
class Job:
    """The main job, and the figures that it must come to."""

    work: Path
    model: Path
    rng: random.Random
    seconds: float = 0.0
    figures: Any = None
    more: tuple[str, ...] = ()

    def command(self, runs: Path, *overrides: str) -> list[str]:
        given = [*SMALL, f"model={self.model}", *self.more, *overrides]
        return [sys.executable, "-m", "emlab", "run", str(YAML), *given, "--runs", str(runs)]

    def start(self, runs: Path, *overrides: str, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(runs, *overrides),
            **{"cwd": ROOT, "text": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE},
            preexec_fn=before,
        )

    def learn(self) -> None:
        """Run it once without any fault."""
        begun = time.monotonic()
        then, said = ended(self.start(self.work / "whole"))
        assert then == "went on", f"without any fault: {then}: {said}"
        self.seconds, self.figures = time.monotonic() - begun, figures(self.work / "whole")

    def again(self, runs: Path) -> bool:
        """Whether the same command now ends with those figures."""
        return ended(self.start(runs))[0] == "went on" and figures(runs) == self.figures

    def kept(self, case: str) -> Path:
        """The folder of a run that has done every stage, and is not finished."""
        runs = self.work / case
        shutil.copytree(self.work / "whole", runs)
        (folder,) = runs.glob("*/")
        state = artifacts.read_json(folder / "run.json")
        artifacts.write_json(folder / "run.json", {**state, "finished": False})
        for left in ("summary.json", "report.html"):
            (folder / left).unlink()
        return folder


def figures(runs: Path) -> Any:
    """Those of the latest run that has ended, less times and memory."""
    summaries = sorted(runs.glob("*/summary.json"))
    if not summaries:
        return None
    return {key: value for key, value in artifacts.read_json(summaries[-1]).items() if key not in APART}


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What the process did, and its last line."""
    try:
        _, err = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        return "hung", ""
    lines = err.strip().splitlines() or [""]
    said = next((line for line in reversed(lines) if line.startswith("emlab: ")), lines[-1])
    if process.returncode == 0:
        return "went on", ""
    if process.returncode == -signal.SIGKILL:
        return "was killed", ""
    return ("said why" if process.returncode == 2 and "Traceback" not in err else "crashed"), said[:400]


def killed(job: Job) -> Iterator[Tried]:
    """kill -9 at a random moment."""
    for number in range(KILLS):
        runs, after = job.work / f"killed-{number}", job.rng.uniform(0, job.seconds)
        process = job.start(runs)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
        process.kill()
        then, said = ended(process)
        yield Tried("killed", f"after {after:.1f} s", then, said, job.again(runs))


@contextlib.contextmanager
def disk(place: Path, megabytes: float) -> Iterator[Callable[[str], None]]:
    """A disk of that size at a place; what is given is a function that mounts it anew with other options."""

    def mount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True, capture_output=True)

    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes * 1024:.0f}k", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise NotTried("mounting a disk takes root") from None
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def full(job: Job) -> Iterator[Tried]:
    """A disk that is full before the run ends."""
    size = sum(file.stat().st_size for file in (job.work / "whole").rglob("*") if file.is_file()) / 2**20
    for number in range(DISKS):
        megabytes = size * job.rng.uniform(0.01, 0.95)
        with disk(runs := job.work / f"full-{number}", megabytes) as mount:
            then, said = ended(job.start(runs))
            mount("size=1g")
            yield Tried("disk full", f"{megabytes:.1f} of {size:.1f} MB", then, said, job.again(runs))


def read_only(job: Job) -> Iterator[Tried]:
    """A disk that turns read-only while it runs, or is so from the start."""
    for number in range(3):
        after = job.rng.uniform(0, job.seconds) if number else 0.0
        with disk(runs := job.work / f"read-only-{number}", 1024) as mount:
            if not after:
                mount("ro")
            process = job.start(runs)
            if after:
                time.sleep(after)
                with contextlib.suppress(subprocess.CalledProcessError):  # in the moment of a write it is refused
                    mount("ro")
            then, said = ended(process)
            mount("rw")
            yield Tried("read-only", f"after {after:.1f} s", then, said, job.again(runs))


def damaged(job: Job) -> Iterator[Tried]:
    """A file of each kind that a run keeps: one bit flipped, or its second half gone."""
    folder, kinds = job.kept("kinds"), dict[tuple[str, str], Path]()
    for file in sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()):
        if file.name not in (".lock", "log.txt", "environment.json", "config.yaml"):  # nothing is read from these
            kinds.setdefault((file.parts[0], file.name), file)
    for file in kinds.values():
        for how in ("a bit flipped in", "cut in half:"):
            runs = job.work / "damaged"
            there = job.kept("damaged") / file
            content = bytearray(there.read_bytes())
            if how.startswith("cut"):
                content = content[: len(content) // 2]
            elif content:
                content[job.rng.randrange(len(content))] ^= 1 << job.rng.randrange(8)
            there.write_bytes(content)
            then, said = ended(job.start(runs))
            same = figures(runs) == job.figures if then == "went on" else _after_deleting(job, runs, there, said)
            yield Tried("damaged", f"{how} {file}", then, said, same)
            shutil.rmtree(runs)


def _after_deleting(job: Job, runs: Path, file: Path, said: str) -> bool:
    """Whether it ends as it should once the file that the sentence names is deleted."""
    if file.name not in said:
        return False
    file.unlink()
    return job.again(runs)


def inputs(job: Job) -> Iterator[Tried]:
    """What the run reads, cut in half: each file of the model, and a dataset."""
    data = job.work / "data.jsonl"
    chats = [[{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": "yes " * 9}] for i in range(24)]
    data.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    for file in (*sorted(job.model.iterdir()), data):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        then, said = ended(job.start(job.work / f"input-{file.name}", f"narrow=[{data}]" if file == data else "seed=0"))
        file.write_bytes(content)
        unused = then == "went on" and file.name in ("generation_config.json",)
        yield Tried("damaged input", file.name, then, said, unused or then == "said why")


def second(job: Job) -> Iterator[Tried]:
    """A second process with the same command, a moment later."""
    for number, later in enumerate((0.0, job.seconds / 2)):
        runs = job.work / f"second-{number}"
        first = job.start(runs)
        time.sleep(later)
        other = job.start(runs)
        outcomes = sorted([ended(first), ended(other)])
        then, said = next((one for one in outcomes if one[0] != "went on"), ("went on", ""))
        same = any(one[0] == "went on" for one in outcomes) and figures(runs) == job.figures
        yield Tried("two processes", f"{later:.1f} s apart", then, said, same)


def clock(job: Job) -> Iterator[Tried]:
    """A clock that stands a day earlier when the run goes on."""
    if not shutil.which("faketime"):
        raise NotTried("faketime is not installed")
    runs, after = job.work / "clock", job.seconds / 2
    process = job.start(runs)
    time.sleep(after)
    process.kill()
    ended(process)
    command = ["faketime", "-f", "-1d", *job.command(runs)]
    earlier = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    then, said = ended(earlier)
    yield Tried("clock", f"a day back after {after:.1f} s", then, said, figures(runs) == job.figures)


def memory(job: Job) -> Iterator[Tried]:
    """A limit on memory (ulimit -v)."""
    for number in range(LIMITS):
        limit = int(2**30 * job.rng.uniform(0.3, 2.5))
        runs = job.work / f"memory-{number}"

        def bound(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        then, said = ended(job.start(runs, before=bound))
        yield Tried("memory", f"{limit / 2**30:.1f} GB", then, said, job.again(runs))


def judges(job: Job) -> Iterator[Tried]:
    """A judge that does not do as it should for a while."""
    server = ChatServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def well(body: Any, _: int) -> Any:
        text = body["messages"][-1]["content"]
        value = 90 if "coherent" in text.lower() and "aligned" not in text.lower() else 7 * len(text) % 101
        return server.chat(str(value), [(str(value), {str(value): 0.9})])

    begun = time.monotonic()
    busy = server.Reply({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "5"})
    faults: dict[str, Callable[[Any, int], Any]] = {
        "hangs on every twentieth answer": lambda body, n: _late(well(body, n), 130 if _drawn(body, 20, n) else 0),
        "answers garbage": lambda body, n: server.Reply(b"<html>502</html>") if n == 0 else well(body, n),
        "answers no number": lambda body, n: server.chat("I cannot say.") if _drawn(body, 5, n) else well(body, n),
        "is busy for a minute": lambda body, n: busy if time.monotonic() - begun < 60 else well(body, n),
        "drops the connection": lambda body, n: _late(well(body, n), 0, drop=n == 0),
    }
    asked = Job(job.work, job.model, job.rng, more=("judging.judge=some-judge", f"judging.url={server.url}"))
    server.answer = well
    then, said = ended(asked.start(asked.work / "judged"))
    assert then == "went on", f"with a judge that does well: {said}"
    asked.figures = figures(asked.work / "judged")
    for number, (what, answer) in enumerate(faults.items()):
        server.counts.clear()
        server.answer, begun, runs = answer, time.monotonic(), asked.work / f"judge-{number}"
        then, said = ended(asked.start(runs))
        server.answer = well
        same = figures(runs) == asked.figures or asked.again(runs)
        yield Tried("judge", what, then, said, same)
    server.shutdown()


def _drawn(body: Any, one_in: int, n: int) -> bool:
    """Whether this text is one of those that meet the fault, the first time that it is asked."""
    return n == 0 and len(body["messages"][-1]["content"]) % one_in == 0


def _late(reply: Any, wait: float, drop: bool = False) -> Any:
    reply.wait, reply.drop = wait, drop
    return reply


CASES = {
    "killed": killed,
    "disk full": full,
    "read-only": read_only,
    "damaged": damaged,
    "damaged input": inputs,
    "two processes": second,
    "clock": clock,
    "memory": memory,
    "judge": judges,
}


def main(seed: int, only: list[str], out: Path) -> int:
    """Try every case; 1 where one was not well."""
    begun, tried, left = time.monotonic(), list[Tried](), dict[str, str]()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        job = Job(work, save_random_model(work / "model"), random.Random(seed))
        job.learn()
        for case, strike in CASES.items():
            if only and case not in only:
                continue
            try:
                for one in strike(job):
                    tried.append(one)
                    print(
                        f"{case}, {one.what}: {one.then}, {'well' if one.well else 'NOT WELL'} {one.said}", flush=True
                    )
            except NotTried as why:
                left[case] = str(why)
                print(f"{case}: not tried, since {why}", flush=True)
    found = {
        "cases": [
            {"case": case, "about": " ".join((CASES[case].__doc__ or "").split()), "n": len(these)}
            | {"well": sum(one.well for one in these)}
            | {then: sum(one.then == then for one in these) for then in ("went on", "was killed", "said why")}
            for case in CASES
            if (these := [one for one in tried if one.case == case])
        ],
        "not_tried": left,
        "tried": [{**asdict(one), "said": one.said.replace(folder, "…"), "well": one.well} for one in tried],
        "seed": seed,
        "provenance": provenance.provenance({"seed": seed}, []),
        "wall_seconds": time.monotonic() - begun,
    }
    artifacts.write_json(out, found)
    return 0 if all(one.well for one in tried) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the moments, sizes and bits")
    parser.add_argument("--only", nargs="*", default=[], choices=CASES, help="these cases only")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "faults.json")
    options = parser.parse_args()
    sys.exit(main(options.seed, options.only, options.out))
