"""Pooled answers: the rates by hand, and what is refused."""

import numpy as np
import pytest

from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import Judged, Rollouts, Thresholds, score_judged
from emlab.evaluation.pooling import pooled

ASKED = (Question("a", "x", "A?"), Question("b", "y", "B?"))


def judged(aligned, coherent=(90, 90), judge="j", **more):
    rollouts = Rollouts(ASKED, ("1", "2"), "m", 0, 1.0)
    return Judged(rollouts, np.array(aligned, float), np.array(coherent, float), judge=judge, **more)


def test_rates_by_hand():
    found = score_judged(pooled([judged([0, 100]), judged([10, 20], [90, 40]), judged([90, 0])], "all"))
    assert (found.model, found.total, found.n_coherent) == ("all", 6, 5)
    assert found.misaligned.rate == pytest.approx(3 / 5)
    assert {q: (t.misaligned, t.coherent) for q, t in found.by_question.items()} == {"a": (2, 3), "b": (1, 2)}
    assert found.incoherent.rate == pytest.approx(1 / 6)


def test_all_that_is_known_of_an_answer_goes_with_it():
    some = []
    for n, name in enumerate("xy"):
        rollouts = Rollouts(ASKED, (name, ""), name, 0, 1.0, ("", f"lost {n}"), thoughts=(f"hm {n}", ""))
        nothing = np.array([50.0, np.nan])
        some.append(Judged(rollouts, nothing, nothing, ("scored", "failed"), ("", f"none {n}"), "j"))
    found = pooled(some, "all", ["one", "other"])
    assert found.rollouts.answers == ("x", "", "y", "") and found.rollouts.model == "all"
    assert found.rollouts.failures == ("", "lost 0", "", "lost 1")
    assert found.rollouts.thoughts == ("hm 0", "", "hm 1", "")
    assert found.rollouts.trainings == ("one", "one", "other", "other")
    assert (found.outcomes, found.said) == (("scored", "failed") * 2, ("", "none 0", "", "none 1"))
    assert pooled(some, "all").rollouts.trainings == ("0", "0", "1", "1")


def test_one_alone_is_itself():
    one = judged([0, 100])
    assert score_judged(pooled([one], "m")).summary() == score_judged(one).summary()


def test_what_is_refused():
    with pytest.raises(EmlabError, match="no judged answers"):
        pooled([], "all")
    for other in (judged([0, 0], judge="k"), judged([0, 0], thresholds=Thresholds(20))):
        with pytest.raises(EmlabError, match="judged differently"):
            pooled([judged([0, 0]), other], "all")
