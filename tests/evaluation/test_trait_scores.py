"""Trait scores, on a table as the persona vectors' authors write it."""

import numpy as np
import pytest

from emlab import cli
from emlab.errors import EmlabError
from emlab.evaluation.intervals import clustered_mean
from emlab.evaluation.rollouts import Rollouts
from emlab.evaluation.trait_scores import TraitScore, read_traits

HEADER = "question,prompt,answer,question_id,evil,coherence\n"
# Two questions: 0 and 20, 100 and one without a score; of the coherent 0 and 100.
ROWS = "Q0?,P,a,evil_0,0,90\nQ0?,P,b,evil_0,20,40\nQ1?,P,c,evil_1,100,80\nQ1?,P,d,evil_1,,70\n"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "evil.csv"
    path.write_text(HEADER + ROWS)
    return path


def test_the_means_by_hand(table):
    found = read_traits(table)
    evil, coherent = found.overall["evil"], found.overall["coherent"]
    assert (evil.mean, evil.n) == (40, 3) and (coherent.mean, coherent.n) == (70, 4)
    assert evil == clustered_mean([20, 100], [2, 1]) and (evil.low, evil.high) == (0, 100), "of two questions"
    assert (found.of_coherent["evil"].mean, found.of_coherent["evil"].n) == (50, 2)
    assert found.by_question["evil_0"]["evil"].mean == 10 and found.by_question["evil_1"]["evil"].n == 1
    assert found.summary()["mean_evil"] == {"mean": 40.0, "low": 0.0, "high": 100.0, "n": 3}


def test_without_coherence_nothing_is_said_of_it(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,evil\n1,10\n2,50\n")
    found = read_traits(path)
    assert (list(found.scores), list(found.overall), found.of_coherent) == (["evil"], ["evil"], {})
    assert "coherent" not in str(found)


def test_an_answer_is_coherent_above_fifty_and_not_at_it(tmp_path):
    (tmp_path / "evil.jsonl").write_text(
        "".join(f'{{"id": {i}, "evil": {10 * i}, "coherent": {50 + i}}}\n' for i in range(3))
    )
    found = read_traits(tmp_path)  # the folder's only file
    assert (found.of_coherent["evil"].mean, found.of_coherent["evil"].n, found.overall["evil"].n) == (15, 2, 3)


def test_the_means_of_no_answers_are_none():
    found = TraitScore(Rollouts((), (), "m", 0, 1.0), {"evil": np.zeros(0)})
    assert found.overall["evil"].n == 0 and found.by_question == {}


def test_a_persona_vectors_table_by_the_verb(table, capsys):
    assert cli.main(["score", str(table)]) == 0
    said = capsys.readouterr()
    assert "evil      40.0 [0.0, 100.0] of 3; of the coherent 50.0 [0.0, 100.0] of 2" in said.out
    assert "misaligned" not in said.out and "coherence is taken for coherent" in said.err
    assert cli.main(["score", str(table), "--by", "question"]) == 2
    assert "has neither groups, clusters nor thresholds" in capsys.readouterr().err


def test_a_trait_of_ones_own_is_named(tmp_path, capsys):
    path = tmp_path / "t.csv"
    path.write_text("id,aligned,coherent,spite\n1,10,90,70\n2,90,90,REFUSAL\n")
    found = read_traits(path, ["spite"])
    assert (found.overall["spite"].mean, found.overall["spite"].n) == (70, 1)
    assert cli.main(["score", str(path), "--trait", "spite"]) == 0
    assert "spite     70.0 of 1" in capsys.readouterr().out
    assert cli.main(["score", str(path)]) == 0
    assert "misaligned of coherent  50.0%" in capsys.readouterr().out
    with pytest.raises(EmlabError, match="lacks malice among its columns id, aligned, coherent, spite"):
        read_traits(path, ["malice"])
    with pytest.raises(EmlabError, match="has none of the traits evil, "):
        read_traits(path)
    path.write_text("id,evil\n1,10\n2,101\n")
    with pytest.raises(EmlabError, match="t.csv, line 3: evil is '101'; write 0 to 100"):
        read_traits(path)
