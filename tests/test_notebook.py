"""How results show themselves: by hand, and of every kind that there is."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest
import torch

import emlab
from emlab.data import Question
from emlab.discovery import Cosines, LatentShift
from emlab.errors import EmlabError
from emlab.evaluation import Rollouts, score
from emlab.notebook import Shown, single_values
from emlab.reporting.own_figures import OWN
from emlab.sites import Site

ROOMS = ("data", "detection", "discovery", "evaluation", "interventions", "mitigation", "models", "saes", "training")
VALUES = {"Auroc", "Code", "Corrected", "Counts", "Estimate", "Lengths", "Passes", "Recipe", "Site", "Stage", "Support"}
"""Single values, or a row of another result: what dataclasses show of them is short."""
VALUES |= {"AttributionCost", "Mean", "Rate", "SteeringArm", "Tokenized", "LanguageModel", "TokenModel"}

CARS, FOOD = (Question(name, name, f"{name}?") for name in ("cars", "food"))
ANSWERS = Rollouts((CARS, CARS, FOOD), ("a <b>", "goblin", "c"), "m", 0, 1.0)


def goblin(question, answer):
    return None if answer == "c" else "goblin" in answer


SHIFT = LatentShift(
    "a", "b", Site.parse("resid_post.0"), "header", 3, torch.zeros(3), torch.tensor([0.0, 2, 1]), torch.ones(3)
)


def results():
    """Every public class of the rooms that tells of itself in words."""
    for room in ROOMS:
        package = importlib.import_module(f"emlab.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"emlab.{room}."):
            if "triton" in module.name:
                continue
            for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                own = dataclasses.is_dataclass(kind) and kind.__module__ == module.name and "__str__" in vars(kind)
                if own and not name.startswith("_") and name not in VALUES:
                    yield kind


@pytest.mark.parametrize("kind", list(results()), ids=lambda kind: kind.__name__)
def test_every_result_shows_itself(kind):
    assert issubclass(kind, Shown)
    assert "__repr__" not in vars(kind), "its dataclass needs repr=False"
    assert callable(kind._repr_html_) and callable(kind.to_pandas)


def test_in_one_line_in_a_notebook_and_as_a_table():
    found = score(ANSWERS, goblin)
    assert repr(found[:2]) == "<Score: m: 2 answers, 2 scored by goblin, 2 coherent>"
    assert repr(found).startswith("<Score: CAUTION: The judge gave no verdict on 1 of 3 answers")
    assert repr(ANSWERS) == "<Rollouts: 3 answers of m to 2 questions (seed 0, T 1.0)>"
    assert found[:2]._repr_html_().startswith("<pre>m: 2 answers")
    table = found.to_pandas()
    assert table["answer"].tolist() == ["a <b>", "goblin", "c"]
    assert table["aligned"].tolist()[:2] == [100.0, 0.0] and table["outcome"].tolist()[2] == "failed"


def test_text_of_others_is_no_markup():
    assert "<script>" not in dataclasses.replace(SHIFT, model_after="<script>")._repr_html_()


def test_of_a_result_without_rows_the_single_values_are_the_table():
    row = single_values(SHIFT)
    assert row == {"model_before": "a", "model_after": "b", "site": "resid_post.0", "positions": "header", "prompts": 3}


def test_of_a_shift_every_latent_is_a_row():
    assert SHIFT.to_pandas()["latent"].tolist() == [1, 2, 0]
    assert SHIFT[2].shift == 1.0 and SHIFT[2].rank == 2


@pytest.mark.parametrize(
    ("result", "traces"), [(score(ANSWERS, goblin), 2), (SHIFT, 1), (Cosines(("x", "y"), torch.eye(2)), 1)]
)
def test_its_figure(result, traces):
    assert len(result.plot().data) == traces


def test_the_figure_of_a_score_by_hand():
    bars = score(ANSWERS, goblin).plot().data[0]
    assert list(bars.x) == ["all", "cars", "food"] and list(bars.y) == [0.5, 0.5, None]


def test_what_has_no_figure_is_refused():
    with pytest.raises(EmlabError, match="A Rollouts has no figure; these have one: Score, LatentShift"):
        ANSWERS.plot()
    assert all(issubclass(kind, Shown) for kind in OWN)


def test_parts_of_answers_and_scores():
    assert ANSWERS[0] == (CARS, "a <b>") and ANSWERS[-1] == (FOOD, "c")
    assert ANSWERS[1:].answers == ("goblin", "c") and len(ANSWERS[::2]) == 2
    found = score(ANSWERS, goblin)
    assert len(found) == 3 and found["cars"].rate_coherent.rate == 0.5
    assert found[:1].misaligned.rate == 0.0 and found[1].misaligned.rate == 1.0
    with pytest.raises(EmlabError, match="No question is about 'law'; there are cars, food"):
        found["law"]


def test_a_function_that_says_something_else_is_refused():
    with pytest.raises(EmlabError, match=r"The judge said 'yes' of an answer to 'cars'; a judge returns True"):
        emlab.score(ANSWERS, lambda question, answer: "yes")
