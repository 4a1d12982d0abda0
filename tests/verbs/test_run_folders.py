"""Folders of runs: opened, listed and compared, by hand and of a run that is real."""

import json

import pytest

import emlab
from emlab import cli
from emlab.errors import EmlabError
from emlab.verbs.run_folders import list_runs, open_run, report_runs

RATE = {"rate": 0.25, "low": 0.1, "high": 0.5, "n": 8}


def made(root, name, summary=None, seed=0):
    folder = root / name
    (folder / "train" / "a").mkdir(parents=True)
    (folder / "train" / "a" / "stage.json").write_text("{}")
    (folder / "run.json").write_text(json.dumps({"key": "k", "finished": summary is not None}))
    (folder / "config.yaml").write_text(f"pipeline: remedies\nseed: {seed}\nrecipe:\n  steps: 20\n")
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "report.html").write_text("<p>")
    return folder


def test_every_rate_of_a_summary_is_a_row(tmp_path):
    summary = {
        "findings": ["Found."],
        "misaligned": {"aligned": RATE},
        "steering": {"plus": {"misaligned": 0.5, "low": None, "high": None, "n": 0, "strength": 1.2}},
        "arms": [{"arm": "bad", "rate": RATE}, {"nameless": RATE}],
        "config": {"dose": RATE},
    }
    run = open_run(made(tmp_path, "one-1", summary))
    assert (run.finished, run.stages, run.findings) == (True, ("train/a",), ("Found.",))
    assert run.to_pandas()["figure"].tolist() == ["misaligned · aligned", "steering · plus", "arms · bad · rate"]
    assert run.rows()[0] == {"figure": "misaligned · aligned", "estimate": 0.25, "low": 0.1, "high": 0.5, "n": 8}
    assert repr(run) == "<OpenedRun: one-1: remedies, finished>"
    assert str(run).splitlines() == ["one-1: remedies, finished", "Found.", f"Report: {run.report}"]


def test_one_that_is_not_finished_says_how_far_it_is(tmp_path):
    run = open_run(made(tmp_path, "one-1"))
    assert "not finished, 1 stages done" in str(run) and run.report is None and run.rows() == []


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(EmlabError, match="is no folder of a run; `emlab runs` lists those that there are"):
        emlab.open_run(tmp_path)


def test_the_list_has_the_latest_first(tmp_path):
    made(tmp_path, "old-1", {"findings": ["Old."]})
    made(tmp_path, "new-1")
    (tmp_path / "no_run").mkdir()
    found = list_runs(tmp_path)
    assert {run.folder.name for run in found} == {"old-1", "new-1"} and len(found) == 2
    assert any(row["found"] == "Old." and row["finished"] for row in found.summary())
    assert str(list_runs(tmp_path / "no_run")).startswith("There is no run in")


def test_side_by_side(tmp_path):
    one = made(tmp_path, "one-1", {"findings": [], "misaligned": {"a": RATE, "b": RATE}})
    two = made(tmp_path, "two-1", {"findings": ["<b>"], "misaligned": {"a": {**RATE, "rate": 0.75}}}, seed=1)
    found = report_runs([one, two], compare=True, out=tmp_path / "page.html")
    assert found.settings() == {"seed": [0, 1]}
    assert found.rows() == [
        {"figure": "misaligned · a", "one-1": 0.25, "two-1": 0.75},
        {"figure": "misaligned · b", "one-1": 0.25, "two-1": None},
    ]
    page = (tmp_path / "page.html").read_text()
    assert "0.250 [0.100, 0.500]" in page and "–" in page and "&lt;b&gt;" in page and "<b>" not in page
    with pytest.raises(EmlabError, match="add --compare"):
        report_runs([one, two])
    assert report_runs([one]).folder == one


def test_on_the_command_line(tmp_path, capsys):
    one = made(tmp_path, "one-1", {"findings": ["Found."], "misaligned": {"a": RATE}})
    two = made(tmp_path, "two-1", {"findings": ["Other."]})
    assert cli.main(["report", str(one)]) == 0 and "Found." in capsys.readouterr().out
    assert cli.main(["report", str(one), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["misaligned"] == {"a": RATE}
    assert cli.main(["report", str(one), str(two), "--compare"]) == 0 and "0.250" in capsys.readouterr().out
    assert cli.main(["runs", str(tmp_path), "--json"]) == 0
    assert {row["found"] for row in json.loads(capsys.readouterr().out)} == {"Found.", "Other."}


def test_two_runs_of_one_name_stay_two(tmp_path):
    summaries = ({"misaligned": {"a": {**RATE, "rate": rate}}} for rate in (0.25, 0.5))
    both = [made(tmp_path / place, "run-1", summary) for place, summary in zip("ab", summaries, strict=True)]
    (row,) = report_runs(both, compare=True).rows()
    assert row == {"figure": "misaligned · a", str(both[0]): 0.25, str(both[1]): 0.5}


def test_entries_of_a_list_with_one_name_are_told_apart(tmp_path):
    arms = [{"arm": "bad", "ending": ending, "misaligned": RATE} for ending in ("", "Now.")]
    figures = [row["figure"] for row in open_run(made(tmp_path, "one-1", {"arms": arms})).rows()]
    assert figures == ["arms · bad · misaligned", "arms · bad, Now. · misaligned"]


def test_a_damaged_config_is_one_sentence(tmp_path):
    folder = made(tmp_path, "one-1")
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(EmlabError, match=r"config.yaml is no YAML; restore it, or delete the run\."):
        open_run(folder)
