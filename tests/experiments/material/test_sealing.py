"""Which look at the sealed material a run is: the ledger, the kept summary, and what is said."""

import shutil
from dataclasses import dataclass
from typing import ClassVar

import pytest

from emlab import artifacts, config, organism, provenance
from emlab.data import SealedQuestion
from emlab.errors import EmlabError
from emlab.experiments.material.config import BehaviourConfig, FineTuningConfig
from emlab.experiments.material.questions import halves_of
from emlab.experiments.material.results import finish_run
from emlab.experiments.material.sealing import LEDGER, open_seal
from emlab.experiments.registry import EXPERIMENTS
from emlab.provenance import Code
from emlab.runs import Run
from emlab.sealing import SEEDS


@dataclass(frozen=True, kw_only=True)
class Config(FineTuningConfig):
    pipeline: ClassVar[str] = "some"
    seals: ClassVar[bool] = True
    title: str = "Some"
    seeds: tuple[int, ...] = (0, 1)


def ran(settings, root, found="58% misaligned"):
    """A whole run that finds this, its summary and its cautions."""
    run = Run.resume(settings.name, settings, root)
    open_seal(run, settings)
    return finish_run(run, settings, None, [found], [], {}).summary


def test_a_run_that_is_not_sealed_opens_nothing(tmp_path):
    summary = ran(Config(), tmp_path)
    assert "sealed" not in summary and not (tmp_path / LEDGER).exists()


def test_the_first_sealed_run_says_what_it_was_of(tmp_path):
    summary = ran(Config(sealed=True, questions=26), tmp_path)
    first, second, last = summary["findings"]
    assert "rates are of 26 questions in 13 domains, of fine-tunes and documents with seeds from 4000000000 on" in first
    assert second == "This is the first sealed run of some." and last == "58% misaligned"
    assert summary["sealed"]["earlier"] == [] and summary["sealed"]["look"]["questions"] == 26
    assert first.startswith(f"SEALED RUN of {summary['sealed']['look']['date']}")
    page = next(tmp_path.glob("some-*/report.html")).read_text()
    assert "SEALED RUN" in page and "first sealed run of some" in page


def test_a_second_sealed_run_of_another_config_says_so(tmp_path):
    first = ran(Config(sealed=True), tmp_path)["sealed"]["look"]
    summary = ran(Config(sealed=True, rows=7), tmp_path, "12% misaligned")
    (said,) = [line for line in summary["findings"] if line.startswith("CAUTION")]
    assert said.startswith("CAUTION: this is the 2nd sealed run of some, and it had another config before, on ")
    assert first["date"] in said and first["folder"] in said
    (earlier,) = summary["sealed"]["earlier"]
    assert "58% misaligned" in earlier["findings"], "what was found before stays to be read"
    third = ran(Config(sealed=True, rows=8), tmp_path)
    assert any("the 3rd sealed run of some" in line for line in third["findings"])
    assert [look["config"] for look in third["sealed"]["earlier"]] == [
        first["config"],
        summary["sealed"]["look"]["config"],
    ]


def test_the_same_config_again_is_told_as_the_same(tmp_path):
    ran(Config(sealed=True), tmp_path)
    again = ran(Config(sealed=True, title="Another title"), tmp_path)["findings"]
    assert any(line.startswith("The same config was run sealed before, on ") for line in again)
    assert not any("CAUTION" in line or "first sealed" in line for line in again)


def test_a_run_that_goes_on_has_looked_once(tmp_path):
    settings = Config(sealed=True)
    run = Run.resume("some", settings, tmp_path)
    open_seal(run, settings)
    run._lock.release()
    assert ran(settings, tmp_path)["findings"][1] == "This is the first sealed run of some."
    assert len((tmp_path / LEDGER).read_text().splitlines()) == 1


def test_a_run_that_goes_on_by_other_code_has_looked_again(tmp_path, monkeypatch):
    settings = Config(sealed=True)
    run = Run.resume("some", settings, tmp_path)
    open_seal(run, settings)
    run._lock.release()
    monkeypatch.setattr(provenance, "code", lambda: Code("changed"))
    summary = ran(settings, tmp_path)
    assert len(list(tmp_path.glob("some-*"))) == 1, "it goes on"
    assert len((tmp_path / LEDGER).read_text().splitlines()) == 2
    first, second = summary["sealed"]["earlier"][0], summary["sealed"]["look"]
    assert (first["config"], second["code"]) == (second["config"], "changed") and first["code"] != "changed"
    said = summary["findings"][1]
    assert said.startswith("CAUTION: this is the 2nd sealed run of some, and it had other code before, on ")
    assert not any("first sealed" in line or "repeats" in line for line in summary["findings"])


def test_the_same_config_by_other_code_is_told_as_changed(tmp_path, monkeypatch):
    ran(Config(sealed=True), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "code", lambda: Code("changed"))
        said = ran(Config(sealed=True), tmp_path)["findings"]
    assert said[1].startswith("CAUTION: this is the 2nd sealed run of some, and it had other code before, on ")
    said = ran(Config(sealed=True, rows=7), tmp_path)["findings"]
    assert said[1].count("another config before, on ") == 2 and "3rd sealed run" in said[1]
    said = ran(Config(sealed=True), tmp_path)["findings"]
    assert "this repeats it." in said[1] and said[2].count("other code before") == 1
    assert said[2].count("another config before") == 1 and "4th sealed run" in said[2]


def test_a_run_that_was_given_up_has_looked_too(tmp_path):
    open_seal(Run.create("some", Config(sealed=True), tmp_path), Config(sealed=True))
    said = ran(Config(sealed=True, rows=7), tmp_path)["findings"]
    assert any("the 2nd sealed run of some" in line for line in said)


def test_the_kept_summary_remembers_where_the_runs_are_gone(tmp_path):
    kept = tmp_path / "kept.json"
    ran(Config(sealed=True, summary=kept), tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs")
    second = ran(Config(sealed=True, rows=7, summary=kept), tmp_path / "runs")
    assert any("the 2nd sealed run of some" in line for line in second["findings"])
    shutil.rmtree(tmp_path / "runs")
    third = ran(Config(sealed=True, rows=8, summary=kept), tmp_path / "runs")
    assert len(third["sealed"]["earlier"]) == 2
    assert "58% misaligned" in artifacts.read_json(kept)["sealed"]["earlier"][0]["findings"]


def test_looks_of_other_runs_are_named(tmp_path):
    ran(Config(sealed=True, name="doses"), tmp_path)
    said = ran(Config(sealed=True), tmp_path)["findings"]
    assert "This is the first sealed run of some." in said
    assert "The same sealed questions were asked before by doses." in said


def test_halves_of_a_sealed_run_choose_on_the_ordinary_ones():
    (ordinary, _), (sealed, whole) = halves_of("broad", 0), halves_of("broad", 0, sealed=True)
    assert sealed.discovery == ordinary.discovery
    assert {type(q) for q in sealed.test} == {SealedQuestion} and len(sealed.test) == 416
    assert {q.text for q in sealed.test} == {q.text for q in organism.sealed_questions()}
    assert set(sealed.test) <= set(whole), "the judge is told of them"


def test_the_seed_of_what_is_reported():
    assert Config().reported(3) == 3 and Config(sealed=True).reported(3) == SEEDS.start + 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["sealed=true", "question_set=profile"], "'sealed' is true, and no questions of 'profile' are sealed"),
        ([f"seeds=[0, {SEEDS.start}]"], f"'seeds' has {SEEDS.start}, a seed of sealed runs; give another"),
        (["sealed=true", f"seeds=[{SEEDS.start}]"], "'seeds' has 4000000000, a seed of sealed runs"),
    ],
)
def test_what_is_refused(more, said):
    with pytest.raises(EmlabError, match=said):
        config.load(None, more, Config)


def test_a_sealed_run_of_what_reports_nothing_sealed_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Open(BehaviourConfig):
        pipeline: ClassVar[str] = "open"

    with pytest.raises(ValueError, match="'sealed' is true, and open reports nothing on sealed material; leave it out"):
        Open(sealed=True)


@pytest.mark.parametrize("pipeline", ["persona_features", "remedies"])
def test_texts_of_ones_own_are_not_sealed(pipeline):
    with pytest.raises(EmlabError, match="no documents of 'text' \\(mine.jsonl\\) are sealed"):
        config.load(None, ["sealed=true", "text=mine.jsonl"], EXPERIMENTS.get(pipeline).config)


def test_the_experiment_in_an_experiment_is_not_sealed_alone():
    kind = EXPERIMENTS.get("false_discoveries").config
    with pytest.raises(EmlabError, match="'experiment.sealed' is true; write 'sealed: true' beside 'experiment'"):
        config.load(None, ["experiment.sealed=true"], kind)
    assert config.load(None, ["sealed=true"], kind).sealed
    with pytest.raises(EmlabError, match="'experiment.seed' has 4000000000|'seed' has 4000000000"):
        config.load(None, [f"experiment.seed={SEEDS.start}"], kind)
