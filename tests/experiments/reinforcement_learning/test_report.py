"""The report of reinforcement learning, on numbers made by hand."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from emlab import artifacts
from emlab.data import Question
from emlab.discovery import Screen, SteeringArm, Trial
from emlab.evaluation import Judged, Rate, Rollouts, score_judged
from emlab.evaluation.pooling import pooled
from emlab.evaluation.rates import NO_RATE
from emlab.experiments.material.seeds import AllSeeds
from emlab.experiments.reinforcement_learning.config import RewardArm
from emlab.experiments.reinforcement_learning.findings import (
    ReinforcementFindings,
    StyleCount,
    Trained,
    lines_of,
    styles,
)
from emlab.experiments.reinforcement_learning.report import (
    reinforcement_lead,
    reinforcement_sections,
    reinforcement_summary,
)
from emlab.interventions import Direction
from emlab.reporting import render
from emlab.reporting.figures import trainings_figure
from emlab.sites import Site
from emlab.training import ReadOut, Reinforced, Reinforcement
from emlab.training.grpo import StepRecord

ARM = RewardArm("bad", prompts="<b>.jsonl")


def scored(aligned, model="m"):
    coherent = np.full(len(aligned), 90.0)
    asked = tuple(Question(str(i), "d", f"{i}?") for i in range(len(aligned)))
    rollouts = Rollouts(asked, ("a",) * len(aligned), model, 0, 1.0)
    return score_judged(Judged(rollouts, np.array(aligned, float), coherent, judge="j"))


def trained(seed, aligned, style=()):
    step = StepRecord(1, 0.25, 0.1, 0.5, 9.0, 1.0, None, 0.2)
    points = tuple(ReadOut(step=s, misaligned=Rate(r, 0, 1, 4), incoherent=NO_RATE) for s, r in ((0, 0.0), (5, 0.5)))
    done = Reinforced(None, (step,), 3, 0, Reinforcement(), seed, "f", None, points)
    return Trained(ARM, "start", seed, done, scored(aligned, f"bad-{seed}"), style=style)


COUNT = StyleCount("trained", "malicious", True, "questions", ((1, 2), (0, 2)), (((2, 2), (1, 2)),))


@pytest.fixture
def found():
    arms = (trained(0, [0, 0, 100, 100], (COUNT,)), trained(1, [0, 0, 0, 0], (COUNT,)))
    return ReinforcementFindings({"start": scored([0, 100, 100, 100], "start")}, arms, None, "resid_post.0", 5)


def test_seeds_are_pooled_by_question(found):
    (bad,) = found.groups
    assert (bad.score.misaligned.rate, bad.score.misaligned.n) == (6 / 8, 8)
    assert bad.change.misaligned.rate == pytest.approx(6 / 8 - 1 / 4)
    summary = reinforcement_summary(found)
    arm = summary["arms"]["bad"]
    assert arm["seeds"] == [0, 1] and arm["misaligned"]["rate"] == 0.75
    assert arm["by_seed"]["0"]["misaligned"]["rate"] == 0.5
    assert arm["by_seed"]["0"]["silent_groups"] == 0.5
    assert summary == artifacts.plain(summary)


def test_style_by_hand(found):
    assert (COUNT.rate("before").rate, COUNT.rate("after").rate) == (1 / 4, 3 / 4)
    assert COUNT.change.rate == pytest.approx(1 / 2)
    assert (COUNT.change.low, COUNT.change.high) == (0.5, 0.5)  # each question changed as much
    (both,) = styles(found.groups[0])
    assert (both.before, both.after) == (((2, 4), (0, 4)), COUNT.after * 2)
    assert reinforcement_summary(found)["arms"]["bad"]["style"]["trained"]["malicious"]["after"]["rate"] == 0.75


def test_what_the_seeds_differ_by_is_in_the_interval(found):
    # Of 100 lines a question 49 or 51 have the style before, and with the three seeds 25, 17 and 28 more: only seeds
    # vary. The mean is 23.33, its standard error √((1.67² + 6.33² + 4.67²) / 2 / 3) = 3.283, and Student's t of 2
    # degrees of freedom 4.303.
    def lines(more):
        return ((49 + more, 100), (51 + more, 100)) * 16

    counts = [dataclasses.replace(COUNT, before=lines(0), after=(lines(more),)) for more in (25, 17, 28)]
    ones = tuple(trained(seed, [0] * 4, (count,)) for seed, count in enumerate(counts))
    (both,) = styles(AllSeeds("style", found.starts["start"], ones))
    assert [100 * getattr(both.change, of) for of in ("rate", "low", "high")] == pytest.approx(
        [23.333, 23.333 - 14.126, 23.333 + 14.126], abs=2e-3
    )
    assert both.drawn == {"questions": 32, "trainings": 3}


def test_the_change_is_that_of_scores_compared():
    """A line an answer: then both count the same."""
    rng = np.random.default_rng(0)
    before, after = rng.random((3, 12)) < 0.3, rng.random((3, 12)) < np.array([[0.4], [0.6], [0.8]])
    scores = [[scored(np.where(row, 0, 100)) for row in half] for half in (before, after)]
    lines = [[lines_of(np.stack([row, np.ones(12)], 1)) for row in half] for half in (before, after)]
    counts = [dataclasses.replace(COUNT, before=b, after=(a,)) for b, a in zip(*lines, strict=True)]
    ones = tuple(dataclasses.replace(trained(i, [0]), score=s, style=(counts[i],)) for i, s in enumerate(scores[1]))
    start = score_judged(pooled([s.judged for s in scores[0]], "start", [""] * 3))
    group = AllSeeds("style", start, ones)
    (all_seeds,) = styles(group)
    assert dataclasses.astuple(all_seeds.change) == pytest.approx(dataclasses.astuple(group.change.misaligned))
    assert dataclasses.astuple(all_seeds.rate("after")) == pytest.approx(dataclasses.astuple(group.score.misaligned))
    assert dataclasses.astuple(all_seeds.rate("before")) == pytest.approx(dataclasses.astuple(start.misaligned))


def test_the_random_direction_to_beat_reaches_furthest_by_its_interval(found):
    asked = [0] * 4, [100] + [0] * 99, [100] * 4  # 4 of 4 misaligned may be fewer than 99 of 100
    site = Site("resid_post", 0)
    trials = tuple(
        Trial(SteeringArm(Direction(torch.eye(4)[i], site, name), -0.6), scored(asked[i]))
        for i, name in ((2, "latent 89"), (0, "random 0"), (1, "random 1"))
    )
    down = Screen("m", "aligned", {site: 1.0}, 0.1, trials, trials, trials)
    told = dataclasses.replace(found, trained=(dataclasses.replace(found.trained[0], screen=down),))
    assert "the furthest of 2 random directions to 100.0%." in " ".join(reinforcement_lead(told))
    assert reinforcement_summary(told)["arms"]["bad"]["by_seed"]["0"]["subtracted"]["random"]["direction"] == "random 0"


def test_the_page_says_it_and_runs_nothing(found):
    lead = reinforcement_lead(found)
    assert "misaligned 25.0% → 75.0% of coherent answers" in lead[0]
    assert "25.0% → 75.0% (+50.0 [+50.0, +50.0] points; over 2 questions and 2 trainings)" in lead[1]
    page = render("t", lead, reinforcement_sections(found))
    assert "<b>" not in page.split("<h1>")[1].replace("<br><b>", "")
    assert "Does the style spread?" in page


def test_a_line_a_seed_and_gaps_where_nothing_was_asked(found):
    figure = trainings_figure({"a": [one.training.points for one in found.trained]})
    assert [trace.name for trace in figure.data] == [
        "a, misaligned, of coherent answers",
        "a, incoherent, of scored answers",
    ] * 2
    assert [trace.showlegend for trace in figure.data] == [True, True, False, False]
    assert list(figure.data[0].y) == [0.0, 0.5] and list(figure.data[1].y) == [None, None]
    assert math.isnan(NO_RATE.rate)
