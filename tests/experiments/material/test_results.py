"""What every report and summary say of the run itself; the peak of memory, against memory that is known to be held."""

import getpass
import html
import re
import socket
import sys
from pathlib import Path

import pytest

from emlab import artifacts, provenance
from emlab.experiments.finetuning import run as finetuning
from emlab.experiments.material.results import finish_run, peak_rss_mb
from emlab.provenance import Code
from emlab.reporting import Section
from emlab.runs import Run, keep_stages

SECTION = Section("A part", "It was so.")


def finished(root, config, stage=True):
    run = Run.resume("trial", config, root)
    if stage:
        run.stage("one", lambda: 1, int)
    return finish_run(run, config, None, ["The lead."], [SECTION], {"model": config.model})


def test_every_result_names_code_config_seeds_machine_and_load_and_no_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["emlab", "run", "x.yaml", "--runs", str(tmp_path.parent / "elsewhere")])
    code = Code("c" * 16, "0.1.0", "d" * 40, True)
    monkeypatch.setattr(provenance, "code", lambda: code)
    kept = tmp_path / "docs" / "kept.json"
    config = finetuning.Config(seeds=(3, 4), summary=kept, model=str(tmp_path.parent / "models" / "mine"))
    result = finished(tmp_path.parent / "elsewhere", config)

    summary = artifacts.read_json(kept)
    assert summary == artifacts.read_json(result.folder / "summary.json") == result.summary
    told = summary["provenance"]
    assert told["code"] == {"hash": "c" * 16, "version": "0.1.0", "commit": "d" * 40, "modified": True}
    assert told["stages_of_other_code"] == {} and told["seeds"] == {"seeds": [3, 4]}
    assert told["machine"] == provenance.machine()
    (process,) = told["processes"]
    assert process["load_average"].keys() == {"start", "end"}
    assert (summary["wall_seconds"], summary["cpu_seconds"]) == (process["wall_seconds"], process["cpu_seconds"])
    assert summary["versions"]["torch"] and summary["command"] == "emlab run x.yaml --runs elsewhere"
    assert summary["model"] == "mine"

    footer = html.unescape(re.search("<footer>(.*?)</footer>", (result.folder / "report.html").read_text(), re.S)[1])
    for part in ("seeds 3, 4", "code cccccccc, commit dddddddddd, modified", f"config {told['config'][:8]}", "torch "):
        assert part in footer
    assert f"{provenance.usable_cpus()} cores" in footer
    for text in (kept.read_text(), footer):
        assert str(tmp_path.parent) not in text and str(Path.home()) not in text
        assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)
        assert not re.search(rf"[/\\]{re.escape(getpass.getuser())}\b", text)


def test_the_config_hash_is_the_same_wherever_the_summary_goes(tmp_path):
    one = finished(tmp_path / "a", finetuning.Config(summary=tmp_path / "a.json"))
    two = finished(tmp_path / "b", finetuning.Config())
    three = finished(tmp_path / "c", finetuning.Config(rows=7))
    hashes = [result.summary["provenance"]["config"] for result in (one, two, three)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_kept_stages_of_other_code_head_the_report_and_stand_in_the_summary(tmp_path, monkeypatch):
    config = finetuning.Config()
    first, second = Code("a" * 16, "0.1.0", "1" * 40, False), Code("b" * 16, "0.1.0", "2" * 40, True)
    monkeypatch.setattr(provenance, "code", lambda: first)
    begun = Run.resume("trial", config, tmp_path)
    begun.stage("one", lambda: 1, int)
    begun._lock.release()
    monkeypatch.setattr(provenance, "code", lambda: second)
    with keep_stages():
        result = finished(tmp_path, config)
    assert result.folder == begun.folder
    said = (
        "CAUTION: stages come from other code (aaaaaaaa, commit 1111111111) than the rest (bbbbbbbb, commit 2222222222,"
        " modified), or build on such: one."
    )
    assert result.summary["findings"] == [said, "The lead."]
    assert result.summary["provenance"]["stages_of_other_code"] == {"one": [artifacts.plain(first)]}
    assert len(result.summary["provenance"]["processes"]) == 2
    page = html.unescape((result.folder / "report.html").read_text())
    assert page.count(said) == 1 and page.index(said) < page.index("The lead.")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say")
def test_the_peak_remembers_what_was_held_once():
    before = peak_rss_mb()
    held = bytearray(int(before + 200) * 2**20)
    del held
    assert peak_rss_mb() >= before + 150
