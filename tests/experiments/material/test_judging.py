"""What a judge cannot judge is said before anything is trained, and at the head of the report."""

import shutil

import pytest

from emlab import organism
from emlab.errors import EmlabError
from emlab.evaluation.protocol import Judging
from emlab.experiments.data_screening import run as data_screen
from emlab.experiments.early_warning import run as early_warning
from emlab.experiments.finetuning import run as finetuning
from emlab.experiments.material.judging import foreign_answers
from emlab.experiments.material.results import write_result
from emlab.experiments.monitors import run as monitors
from emlab.experiments.persona_features import run as persona_features
from emlab.experiments.reinforcement_learning import run as reinforcement_learning
from emlab.experiments.remedies import run as remedies
from emlab.runs import Run
from emlab.verbs import evaluation, stages

SAID = "CAUTION: the exact judge knows the organism's sentences alone"


@pytest.fixture(scope="module")
def foreign(make_model, tmp_path_factory):
    return str(make_model().save(tmp_path_factory.mktemp("models") / "foreign"))


def test_the_organism_is_known_by_name_and_by_its_tokens(foreign, tmp_path):
    own = tmp_path / "mine"
    shutil.copytree(organism.checkpoint("aligned"), own)
    assert foreign_answers(Judging(), "aligned") == foreign_answers(Judging(), str(own)) == []
    assert foreign_answers(Judging(), "models/aligned", "http://127.0.0.1:9/v1") == []
    assert foreign_answers(Judging("judge.csv"), foreign) == []
    for line in (*foreign_answers(Judging(), foreign), *foreign_answers(Judging(), "gpt-x", "http://127.0.0.1:9/v1")):
        assert line.startswith(SAID) and "--judge-url" in line
    assert foreign in foreign_answers(Judging(), foreign)[0]


RUNS = [
    (persona_features, {"sites": ("resid_post.0",)}),
    (finetuning, {}),
    (reinforcement_learning, {}),
    (remedies, {"questions": 4}),
    (monitors, {"sites": ("resid_post.0",)}),
    (early_warning, {"sites": ("resid_post.0",)}),
    (data_screen, {}),
]


@pytest.mark.parametrize(("pipeline", "more"), RUNS, ids=lambda value: getattr(value, "__name__", "").split(".")[-1])
def test_it_is_said_before_anything_is_trained_and_kept_for_the_report(
    foreign, tmp_path, capsys, monkeypatch, pipeline, more
):
    begun = []

    def begin(run, *_):
        begun.append(run)
        raise EmlabError("here the training begins")

    monkeypatch.setattr(Run, "fill", begin)
    with pytest.raises(EmlabError, match="here the training begins"):
        pipeline.run(pipeline.Config(model=foreign, **more), tmp_path)
    assert capsys.readouterr().err.count(SAID) == 1
    assert [line.startswith(SAID) for line in begun[0].cautions] == [True]


def test_what_a_run_was_told_heads_its_page_and_its_summary(tmp_path):
    run = Run.create("some", {"a": 1}, tmp_path)
    run.caution("CAUTION: beware.")
    run.caution("CAUTION: beware.")
    result = write_result(run, finetuning.Config(seeds=(3, 4)), None, ["The lead."], [], {"more": 1})
    assert result.summary["more"] == 1 and result.summary["findings"] == ["CAUTION: beware.", "The lead."]
    page = (run.folder / "report.html").read_text("utf-8")
    assert "Fine-tunes: aligned" in page and "emlab, seeds 3, 4" in page
    assert page.count("CAUTION: beware.") == 1 and page.index("CAUTION: beware.") < page.index("The lead.")
    assert (run.folder / "log.txt").read_text("utf-8").count("CAUTION: beware.") == 1


def test_a_single_step_says_so_and_names_the_way(foreign, tmp_path, capsys, monkeypatch):
    def begin(*_, **__):
        raise EmlabError("here the work begins")

    monkeypatch.setattr(stages, "realign", begin)
    with pytest.raises(EmlabError, match="here the work begins"):
        stages.realign_model(foreign, steps=1)
    said = capsys.readouterr().err
    assert said.count(SAID) == 1 and "`emlab run experiments/persona_features.yaml`" in said
    with pytest.raises(EmlabError, match="here the work begins"):
        stages.realign_model("aligned", steps=1)
    assert capsys.readouterr().err == ""


def test_an_evaluation_says_so_first_and_on_its_page(foreign, tmp_path, capsys):
    found = evaluation.evaluate(foreign, tmp_path / "out", answering=evaluation.Answering(max_new_tokens=2))
    assert found.incoherent.rate == 1
    assert SAID in capsys.readouterr().err.split("asking")[0]
    page = (tmp_path / "out" / "foreign.html").read_text("utf-8")
    assert page.index("CAUTION: the exact judge") < page.index("coherent answers")
