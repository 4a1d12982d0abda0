"""What other processes use is told apart from what the benchmark uses, and keeps it from measuring."""

import os
import signal
import subprocess
import sys

import pytest

SPIN = "import time\nuntil = time.process_time() + {}\nwhile time.process_time() < until: pass"


@pytest.fixture(autouse=True)
def short_looks(monkeypatch):
    import _load

    monkeypatch.setattr(_load, "LOOK", 0.5)


@pytest.fixture
def busy():
    """A process of somebody else's: whoever started it has ended."""
    script = f"exec {sys.executable} -c '{SPIN.format(60)}' >/dev/null 2>&1 & echo $!"
    started = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    yield
    os.kill(int(started.stdout), signal.SIGKILL)


def used(clock, machine, own):
    from _load import Used

    return Used(clock, machine, own)


def test_what_others_use_is_what_the_machine_used_less_what_is_ours():
    before = used(100.0, 5000.0, 30.0)
    assert used(110.0, 5018.0, 39.0).others_since(before) == pytest.approx(0.9)  # (18 - 9) / 10 s
    assert used(110.0, 5008.9, 39.0).others_since(before) == 0.0  # the counters' grain


@pytest.mark.parametrize("ended", [False, True])
def test_the_time_of_a_process_that_it_started_is_its_own(ended):
    from _load import Used

    code = SPIN.format(0.5) + "\nprint(flush=True)\nimport sys; sys.stdin.read()"
    before = Used()
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    if ended:
        child.communicate()
    assert Used().own - before.own >= 0.5
    child.kill()
    child.wait()


def test_a_busy_machine_is_refused_and_the_time_that_it_waited_is_named(busy):
    from _load import Load

    with pytest.raises(SystemExit, match=r"use \d\.\d\d cores after 0 minutes of waiting.*less than 0.25.*--busy"):
        Load(busy=False, wait_minutes=0)


def test_with_busy_it_measures_and_says_so(busy):
    from _load import Load, sentence

    told = Load(busy=True, wait_minutes=0).told()
    assert told["cores_of_others"]["before"] > 0.25
    assert told["busy"] and not told["quiet"]
    assert sentence(told).startswith("MEASURED WITH --busy: other processes used ")
    assert set(told["load_average"]) == {"start", "end"}


def test_it_waits_until_the_others_end(monkeypatch, capsys):
    import _load

    found = iter([1.5, 0.7, 0.1, 0.05])
    monkeypatch.setattr(_load.Used, "others_since", lambda *_: next(found))
    told = _load.Load(busy=False, wait_minutes=1).told()
    assert told["cores_of_others"] == {"before": 0.1, "during": 0.05, "less_than": 0.25}
    assert told["quiet"] and _load.sentence(told).startswith(
        "Other processes used 0.10 cores before and 0.05 meanwhile"
    )
    assert capsys.readouterr().err.count("Waiting 1 minutes at most") == 1


def test_what_began_in_the_middle_makes_the_result_a_disturbed_one(monkeypatch):
    import _load

    found = iter([0.0, 0.8])
    monkeypatch.setattr(_load.Used, "others_since", lambda *_: next(found))
    told = _load.Load(busy=False, wait_minutes=0).told()
    assert not told["quiet"] and not told["busy"]
    assert _load.sentence(told).startswith("DISTURBED, measure again: other processes used 0.00 cores before and 0.80")


def test_every_benchmark_waits_for_a_quiet_machine():
    import all as benchmarks

    for script in {one.script for one in benchmarks.BENCHMARKS}:
        text = (benchmarks.ROOT / "benchmarks" / f"{script}.py").read_text()
        assert "quiet(options)" in text and "write(" in text, script
    named = {one.script for one in benchmarks.BENCHMARKS} | {
        "all",
        "gpu",
        "sae_step_peers",
    }  # gpu needs another machine
    there = {path.stem for path in (benchmarks.ROOT / "benchmarks").glob("[!_]*.py")}
    assert there == named, "a benchmark that the command for all of them leaves out"
