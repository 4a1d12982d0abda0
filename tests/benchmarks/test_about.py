"""What a result file says: the spread of the repeats, its bounds and whether they were met, the code and the load."""

import argparse
import json

import pytest


@pytest.fixture
def load(monkeypatch):
    import _load

    monkeypatch.setattr(_load, "LOOK", 0.1)
    return _load.Load(busy=True, wait_minutes=0)


def test_quartiles_are_those_of_the_repeats():
    from _about import spread

    # Of 1, 2, 4, 8, 16 the quartiles are the second and the fourth.
    assert spread([16.0, 1.0, 4.0, 2.0, 8.0]) == {"median": 4.0, "quartiles": [2.0, 8.0], "n": 5}
    assert spread([3.0]) == {"median": 3.0, "quartiles": [3.0, 3.0], "n": 1}


def test_a_bound_is_met_by_the_median_and_up_to_the_limit():
    from _about import at_least, at_most

    assert at_most("x", [1.0, 2.0, 9.0], 2.0)["met"] and not at_most("x", [1.0, 2.1, 2.2], 2.0)["met"]
    assert at_least("x", 2.0, 2.0)["met"] and not at_least("x", 1.9, 2.0)["met"]
    assert at_least("x", [1.0, 2.0, 9.0], 3.0) == {
        **{"what": "x", "value": 2.0, "quartiles": [1.5, 5.5], "n": 3},
        **{"at_least": 3.0, "met": False},
    }


def test_the_table_says_what_missed_its_bound(tmp_path, load, capsys):
    from _about import at_least, at_most, write

    bounds = [at_most("seconds", [1.0, 2.0, 3.0], 2.5), at_least("tokens/s over the peer's", 0.5, 1.0)]
    write(tmp_path / "x.json", {"seconds": 2.5}, {"seconds": 2.0}, bounds, load, ("numpy",))
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.split("  ")[0] == "seconds" and "2 (1.5 to 2.5, n = 3)" in first and first.endswith("≤ 2.5  met")
    assert second.startswith("tokens/s over the peer's  0.5 ") and second.endswith("must be ≥ 1    MISSED")
    assert third.startswith("MEASURED WITH --busy")
    kept = json.loads((tmp_path / "x.json").read_text())
    assert (kept["must"], kept["seconds"], kept["bounds"]) == ({"seconds": 2.5}, 2.0, bounds)
    assert kept["load"]["busy"] is True and kept["versions"]["numpy"] and len(kept["code"]["hash"]) == 16


def test_parts_of_one_file_have_each_their_own_load_and_leave_the_others(tmp_path, load):
    from _about import write

    out = tmp_path / "x.json"
    for part, figure in ((("A", "step"), 1.0), (("A", "train"), 2.0), (("A", "step"), 3.0)):
        write(out, {"least": 1}, {"figure": figure}, [], load, (), part)
    kept = json.loads(out.read_text())
    assert set(kept) == {"must", "A"} and set(kept["A"]) == {"step", "train"}
    assert (kept["A"]["step"]["figure"], kept["A"]["train"]["figure"]) == (3.0, 2.0)
    assert kept["A"]["train"]["load"]["busy"] is True


def test_every_benchmark_is_asked_for_with_the_same_options(monkeypatch):
    from _about import ROOT, asked

    monkeypatch.setattr("sys.argv", ["editing.py", "--busy"])
    options = asked(argparse.ArgumentParser(), "editing")
    assert options.busy and options.wait == 30 and options.out == ROOT / "benchmarks" / "results" / "editing.json"


def test_a_result_is_of_the_code_of_its_benchmark(tmp_path, monkeypatch):
    import _about

    for name in ("emlab/a.py", "benchmarks/one.py", "benchmarks/other.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(_about, "ROOT", tmp_path)
    before = _about.code_hash("one")
    (tmp_path / "benchmarks" / "other.py").write_text("x = 2\n")
    assert _about.code_hash("one") == before
    (tmp_path / "emlab" / "a.py").write_text("x = 2\n")
    assert _about.code_hash("one") != before
