"""The command for all benchmarks goes on where it was, and says what it could not measure or what missed."""

import pytest

SCRIPT = """
import argparse
from _about import asked, at_most, quiet, write
import _load
_load.LOOK = 0.1
parser = argparse.ArgumentParser()
options = asked(parser, "small")
load = quiet(options)
with open("asked.txt", "a") as file:
    file.write("once ")
FAILS
write(options.out, {}, {"x": 3}, [at_most("x", 3.0, 2.0)], load, ())
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with one small benchmark in it, and the command over it."""
    import all as benchmarks

    (tmp_path / "benchmarks").mkdir()
    monkeypatch.setenv("PYTHONPATH", ":".join([str(benchmarks.ROOT / "benchmarks"), str(benchmarks.ROOT)]))
    monkeypatch.setattr(benchmarks, "ROOT", tmp_path)
    monkeypatch.setattr(benchmarks, "BENCHMARKS", (benchmarks.Benchmark("small", 1),))
    return tmp_path


def measure(project, *words, fails=""):
    import all as benchmarks

    (project / "benchmarks" / "small.py").write_text(SCRIPT.replace("FAILS", fails))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["all.py", "--busy", "--out", str(project), *words])
        with pytest.raises(SystemExit) as ended:
            benchmarks.main()
    return bool(ended.value.code)


def times(project):
    return (project / "asked.txt").read_text().count("once")


def test_what_was_measured_is_left_as_it_is_and_what_missed_is_said(project, capsys):
    for _ in range(2):
        assert not measure(project)  # a bound that is missed is a result
        out = capsys.readouterr().out
        assert "x  3  must be ≤ 2  MISSED\nMEASURED WITH --busy" in out
        assert out.endswith("1 bounds missed, 0 of 1 not measured\n")
    assert times(project) == 1


def test_one_that_fails_is_tried_again_and_said_to_be_unmeasured(project, capfd):
    assert measure(project, fails="raise SystemExit('no such peer')")
    out, error = capfd.readouterr()
    assert "NOT MEASURED: it ended with 1: see its message above" in out and "1 of 1 not measured" in out
    assert error.count("no such peer") == times(project) == 2
    assert not measure(project) and times(project) == 3  # it goes on with what is missing


def test_one_that_hangs_is_ended_with_what_it_started(project, monkeypatch, capfd):
    import all as benchmarks

    monkeypatch.setattr(benchmarks, "BENCHMARKS", (benchmarks.Benchmark("small", 0),))
    hang = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(100)'])"
    assert measure(project, "--wait", "0.25", fails=hang)
    assert "NOT MEASURED: it took more than 0 minutes" in capfd.readouterr().out


def test_a_result_stands_where_the_code_is_the_same_and_the_machine_was_quiet():
    from _about import code_hash
    from all import stands

    quiet, busy = ({"code": {"hash": code_hash("demo")}, "load": {"quiet": one}} for one in (True, False))
    assert stands(quiet, "demo", False) and stands(busy, "demo", True) and not stands(busy, "demo", False)
    assert not stands(quiet | {"code": {"hash": "0" * 16}}, "demo", True) and not stands({}, "demo", True)
