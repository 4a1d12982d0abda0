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
from emlab.evaluation.rates import NO_RATE
from emlab.experiments.reinforcement_learning.config import RewardArm
from emlab.experiments.reinforcement_learning.findings import ReinforcementFindings, StyleCount, Trained, styles
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


COUNT = StyleCount("trained", "malicious", True, ((1, 2), (0, 2)), ((2, 2), (1, 2)))


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
    assert (both.before, both.after) == (((2, 4), (0, 4)), ((4, 4), (2, 4)))
    assert reinforcement_summary(found)["arms"]["bad"]["style"]["trained"]["malicious"]["after"]["rate"] == 0.75


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
    assert "lines with the style 25.0% → 75.0% (+50.0 [+50.0, +50.0] points)" in lead[1]
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
