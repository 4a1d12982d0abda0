"""Another model under the exact judge: said before anything is trained, and at the head of the report."""

import shutil

import pytest

from emlab import organism
from emlab.errors import EmlabError
from emlab.evaluation.protocol import Judging
from emlab.pipelines import evaluation, finetuning, persona_features, reinforcement_learning, remedies
from emlab.pipelines._foreign import foreign_answers

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


@pytest.mark.parametrize(
    ("pipeline", "stages"),
    [
        (persona_features, "Bench"),
        (finetuning, "Grid"),
        (reinforcement_learning, "Lab"),
        (remedies, "Comparison"),
    ],
)
def test_it_is_said_before_anything_is_trained(foreign, tmp_path, capsys, monkeypatch, pipeline, stages):
    def begin(*_):
        raise EmlabError("here the training begins")

    monkeypatch.setattr(pipeline, stages, begin)
    data = "correct" if pipeline is reinforcement_learning else "insecure"
    arms = {} if pipeline is persona_features else {"arms": (pipeline.Arm("a", data),)}
    more = {"sites": ("resid_post.0",)} if pipeline is persona_features else {}
    with pytest.raises(EmlabError, match="here the training begins"):
        pipeline.run(pipeline.Config(model=foreign, **arms, **more), tmp_path)
    assert capsys.readouterr().err.count(SAID) == 1


def test_an_evaluation_says_so_first_and_on_its_page(foreign, tmp_path, capsys):
    found = evaluation.evaluate(foreign, tmp_path / "out", max_new_tokens=2)
    assert found.incoherent.rate == 1
    assert SAID in capsys.readouterr().err.split("asking")[0]
    page = (tmp_path / "out" / "foreign.html").read_text("utf-8")
    assert page.index("CAUTION: the exact judge") < page.index("coherent answers")
