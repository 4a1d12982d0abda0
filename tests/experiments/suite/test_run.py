"""A suite of small experiments: in order, told, gone on with; and what is refused before it begins."""

import dataclasses
import shutil

import pytest
import yaml

from emlab import artifacts, organism
from emlab.config import load
from emlab.errors import EmlabError
from emlab.experiments.own_answers import run as own_answers
from emlab.experiments.suite.config import Config, Part
from emlab.experiments.suite.run import PartDone, run, time_left


def part(folder, name, domain, minutes=2.0, **changes):
    """The config file of a small experiment."""
    own = {
        "pipeline": "own_answers",
        "name": name,
        "title": f"Answers on {domain}",
        "model": str(organism.checkpoint("aligned")),
        "out": str(folder / "sets"),
        "sets": [{"name": name, "domains": [domain]}],
        "answers": {"per_question": 1, "max_new_tokens": 12, "batch_size": 144},
        **changes,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(own))
    return Part(folder / f"{name}.yaml", minutes)


def test_each_part_is_run_in_its_turn_and_told(tmp_path, capsys):
    config = Config(name="both", parts=(part(tmp_path, "one", "health"), part(tmp_path, "two", "cooking", 8.0)))
    found = run(config, tmp_path / "runs")
    one, two = found.found
    assert [one.name, two.title] == ["one", "Answers on cooking"] and "chats" in two.findings[0]
    assert all((found.folder / done.report).is_file() for done in (one, two))
    said = capsys.readouterr().err
    assert "Part 1 of 2, one. All of it takes about 10 minutes" in said and "Part 2 of 2, two. About " in said
    assert found.summary["parts"][0]["findings"] == list(one.findings)
    assert one.summary == artifacts.read_json(found.folder / one.report.replace("report.html", "summary.json"))
    assert "Answers on health (" in (found.folder / "report.html").read_text(encoding="utf-8")


def test_stopped_it_goes_on_with_the_part_where_it_was(tmp_path, monkeypatch):
    config = Config(name="both", parts=(part(tmp_path, "one", "health"), part(tmp_path, "two", "cooking")))
    asked, sampled = [], own_answers._sampled

    def sample(settings, part, domain):
        asked.append(domain)
        if asked == ["health", "cooking"]:
            raise KeyboardInterrupt
        return sampled(settings, part, domain)

    monkeypatch.setattr(own_answers, "_sampled", sample)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "runs")
    run(config, tmp_path / "runs")
    assert asked == ["health", "cooking", "cooking"] and len(list((tmp_path / "runs").iterdir())) == 1


def test_a_part_is_done_again_only_where_what_it_reads_has_changed(tmp_path, monkeypatch):
    one, later = part(tmp_path, "one", "health"), part(tmp_path, "two", "cooking", model=str(tmp_path / "later"))
    config = Config(name="both", parts=(one, dataclasses.replace(later, optional=True)))
    asked, sampled = [], own_answers._sampled
    monkeypatch.setattr(
        own_answers, "_sampled", lambda c, part, domain: asked.append(domain) or sampled(c, part, domain)
    )
    first, again = (run(config, tmp_path / "runs").found[0] for _ in range(2))
    assert first == again and asked.count("health") == 1
    shutil.copytree(organism.checkpoint("base"), tmp_path / "later")
    (found,) = (one for one in run(config, tmp_path / "runs").found if one.name == "two")
    assert found.report and asked.count("health") == 1


def test_the_time_that_is_left():
    parts = [Part("a", 10), Part("b", 30), Part("c", 20)]
    done = PartDone("a", "A", (), "a/report.html", 15.0, {})
    assert time_left(parts, []) == "All of it takes about 60 minutes, by the machine that it was measured on."
    left_out = PartDone("b", "B", ("Left out: …",), "", 0.0, {})
    assert time_left(parts, [done]) == "About 75 minutes are left, by what came before."
    assert time_left(parts, [done, left_out]) == "About 30 minutes are left, by what came before."


def test_an_optional_part_is_left_out_where_it_cannot_be_done_and_tried_again(tmp_path, monkeypatch):
    one, two = part(tmp_path, "one", "health"), part(tmp_path, "two", "cooking", model=str(tmp_path / "later"))
    parts = (dataclasses.replace(two, optional=True), one)
    found = run(Config(name="both", parts=parts), tmp_path / "runs")
    (why,) = found.found[0].findings
    assert why.startswith("Left out: ") and "later" in why and found.found[1].report
    assert "Answers on cooking:" in found.summary["findings"]
    with pytest.raises(EmlabError, match="later"):
        run(Config(name="strict", parts=(two, one)), tmp_path / "runs")
    shutil.copytree(organism.checkpoint("aligned"), tmp_path / "later")
    assert run(Config(name="both", parts=parts), tmp_path / "runs").found[0].report


def test_what_is_wrong_is_said_before_anything_begins(tmp_path):
    good, wrong = part(tmp_path, "one", "health"), part(tmp_path, "two", "law")
    with pytest.raises(EmlabError, match="two.yaml: .*no domain 'law'"):
        run(Config(name="both", parts=(good, wrong)), tmp_path / "runs")
    with pytest.raises(EmlabError, match="Two parts of both have the name one"):
        run(Config(name="both", parts=(good, good)), tmp_path / "runs")
    for what in ({"disk": 1e6}, {"memory": 1e6}):
        with pytest.raises(EmlabError, match=r"both takes 1e\+06 GB (on disk|of memory) and .* GB are free"):
            run(Config(name="both", parts=(good,), **what), tmp_path / "runs")
    with pytest.raises(EmlabError, match="none.yaml"):
        run(Config(name="both", parts=(Part(tmp_path / "none.yaml", 1),)), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_it_is_a_pipeline_like_any_other(tmp_path):
    part(tmp_path, "one", "health")
    (tmp_path / "suite.yaml").write_text(f"pipeline: suite\nparts: [{{config: {tmp_path}/one.yaml, minutes: 2}}]\n")
    assert load(tmp_path / "suite.yaml", (), Config).parts == (Part(tmp_path / "one.yaml", 2.0),)
    assert artifacts.place(tmp_path / "one.yaml").is_file()
