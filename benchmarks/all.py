"""Every benchmark, one after the other, each as soon as the machine does nothing else.

    make benchmarks                                  # all, into results/
    python benchmarks/all.py --only editing judging  # some

What was measured already on a quiet machine, by the code that is here now, is left as it is: after an interruption the
same command goes on. What was disturbed is measured once more. At the end every bound is printed, met or missed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _about import ROOT, code_hash, table
from _load import sentence

from emlab import artifacts

PEERS = ("eai-sparsify==1.3.3", "natsort==8.4.0", "schedulefree==1.4.1", "dictionary-learning==0.1.0")
"""Installed beside this environment without what they depend on, so that all have the same torch."""
KEPT = ROOT / "runs" / "benchmarks"
"""What may be made again: the peers' environment, and what an interrupted `screen` has done."""


@dataclass(frozen=True)
class Benchmark:
    """One run of a script."""

    script: str
    minutes: int
    """After so many it is ended: it takes less, on two cores that do nothing else."""
    words: tuple[str, ...] = ()
    part: tuple[str, ...] = ()
    """Where in its result file it stands."""
    threads: int | None = 1
    """Of OpenMP; None as a user has it, one a core."""
    peers: bool = False

    def __str__(self) -> str:
        return " ".join((self.script, *self.part))


BENCHMARKS = (
    Benchmark("demo", 40, threads=None),
    Benchmark("editing", 10),
    Benchmark("monitoring", 15),
    Benchmark("judging", 25),
    Benchmark("sampling", 10),
    Benchmark("training", 20, threads=2),
    Benchmark("sae_streaming", 10, ("--part", "speed"), ("speed",)),
    Benchmark("sae_streaming", 30, ("--part", "memory"), ("memory",)),
    Benchmark("interpretation", 20),
    Benchmark("latent_shift", 15),
    Benchmark("attribution", 20),
    Benchmark("judge_labels", 10),
    *(
        Benchmark("sae_step", minutes, (size, part), (size, part), threads=2, peers=part != "curve")
        for size, part, minutes in (("A", "step", 10), ("A", "train", 30), ("A", "curve", 10), ("B", "step", 15))
    ),
    Benchmark("sae_step", 40, ("B", "train"), ("B", "train"), threads=2, peers=True),
    Benchmark("sae_step", 30, ("recovery",), ("recovery",), threads=2),
    Benchmark("screen", 180, ("--keep", "runs/benchmarks/screen")),
)


def measured(benchmark: Benchmark, folder: Path) -> dict[str, Any]:
    """Its result, empty where there is none."""
    path = folder / f"{benchmark.script}.json"
    found = artifacts.read_json(path) if path.is_file() else {}
    for name in benchmark.part:
        found = found.get(name, {})
    return found


def stands(result: dict[str, Any], script: str, busy: bool) -> bool:
    """Whether a result need not be measured again: of this code, and of a quiet machine unless that is waived."""
    code, load = result.get("code", {}), result.get("load", {})
    return code.get("hash") == code_hash(script) and (busy or load.get("quiet", False))


def run(benchmark: Benchmark, options: argparse.Namespace) -> str:
    """Why it could not be measured, or nothing."""
    command = [sys.executable, f"benchmarks/{benchmark.script}.py", *benchmark.words]
    command += ["--out", str(options.out / f"{benchmark.script}.json"), "--wait", f"{options.wait:g}"]
    command += ["--busy"] if options.busy else []
    if benchmark.peers:
        python = str(peers())
        command += ["--sparsify", python, "--dictionary-learning", python]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    if benchmark.threads is not None:
        environment["OMP_NUM_THREADS"] = str(benchmark.threads)
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        status = process.wait(60 * (benchmark.minutes + options.wait))
        return f"it ended with {status}: see its message above" if status else ""
    except subprocess.TimeoutExpired:
        return f"it took more than {benchmark.minutes} minutes"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with those that it started
            process.wait()


def peers() -> Path:
    """The Python of an environment with the libraries that an SAE's step is compared with."""
    folder = KEPT / "peers"
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if not done.is_file() or done.read_text() != str(PEERS):
        venv.create(folder, clear=True)
        pure = sysconfig.get_path("purelib", vars={"base": str(folder)})
        Path(pure, "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PEERS], check=True)
        done.write_text(str(PEERS))
    return python.relative_to(ROOT)


def main() -> None:
    """Measure what is not measured yet, and print every bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scripts = list(dict.fromkeys(one.script for one in BENCHMARKS))
    parser.add_argument(
        "--only", nargs="+", choices=scripts, default=scripts, metavar="NAME", help="of the scripts (all)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER", help="(results/)"
    )
    parser.add_argument(
        "--busy", action="store_true", help="measure whatever else the machine does; the results say so"
    )
    parser.add_argument("--wait", type=float, default=30, metavar="MINUTES", help="for other processes, each time (30)")
    options = parser.parse_args()
    options.out = options.out.resolve()
    these = [one for one in BENCHMARKS if one.script in options.only]
    failed: dict[Benchmark, str] = {}
    for benchmark in these:
        for _ in range(2):
            if stands(measured(benchmark, options.out), benchmark.script, options.busy):
                break
            print(f"== {benchmark}, {benchmark.minutes} minutes at most", flush=True)
            began = time.monotonic()
            try:
                failed[benchmark] = run(benchmark, options)
            except (OSError, subprocess.SubprocessError) as error:
                failed[benchmark] = f"{error}"
            print(f"== {benchmark} took {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    missed = unmeasured = 0
    for benchmark in these:
        result = measured(benchmark, options.out)
        print(f"\n{benchmark}")
        if not stands(result, benchmark.script, options.busy):
            unmeasured += 1
            print(f"NOT MEASURED: {failed.get(benchmark) or 'other processes disturbed it'}")
            continue
        print(*([table(result["bounds"])] if result["bounds"] else []), sentence(result["load"]), sep="\n")
        missed += sum(not row["met"] for row in result["bounds"])
    print(f"\n{missed} bounds missed, {unmeasured} of {len(these)} not measured")
    raise SystemExit(unmeasured > 0)


if __name__ == "__main__":
    main()
