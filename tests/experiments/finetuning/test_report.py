"""The report of a grid of fine-tunes, on figures made by hand."""

import dataclasses
import math

import pytest

from emlab.evaluation import Rate
from emlab.experiments.finetuning.config import Config, Following, TrainingArm
from emlab.experiments.finetuning.findings import FinetuneCell, FinetuneFindings, TrainingRecord, falls, turning
from emlab.experiments.finetuning.report import finetuning_lead, finetuning_sections, finetuning_summary
from emlab.reporting import figures, render
from emlab.training import ReadOut


def point(step, bad, latent=0.0, norm=math.nan, angle=math.nan, babble=0.0):
    rates = {"misaligned": Rate(bad, bad, bad, 10), "incoherent": Rate(babble, babble, babble, 10)}
    return ReadOut(step=step, **rates, latents={7: latent, 3: 0.0}, gradient_norm=norm, angle=angle)


def cell(made, arm, bad, seed=0, dose=1.0, start="aligned", ending="", questions="", points=(), n=10, series="obvious"):
    trained_on = TrainingArm(arm, "bad_law", "good_law", dose, series=series)
    record = TrainingRecord((2.0, 1.0), (1.0,), tuple(points), 9, 0, 3.0)
    return FinetuneCell(trained_on, start, seed, ending, questions, made.score(arm, bad, n=n), record)


def found(made, cells, latents=(), left_out=(), **settings):
    before = {(c.start, c.ending, c.questions): made.score("aligned", n=c.score.total) for c in cells}
    config = Config(following=Following(every=5), **settings)
    return FinetuneFindings(config, before, tuple(cells), latents, left_out)


def test_the_seeds_of_an_arm_are_pooled(made):
    result = found(made, [cell(made, "bad", 2), cell(made, "bad", 6, seed=1), cell(made, "good", 0)])
    bad, good = result.groups
    assert (bad.arm, good.arm, [one.seed for one in bad.ones]) == ("bad", "good", [0, 1])
    assert (bad.score.misaligned.rate, bad.score.misaligned.n) == (pytest.approx(0.4), 20)
    assert bad.change.misaligned.rate == pytest.approx(0.4)
    lead = finetuning_lead(result)
    assert lead[0].startswith("bad from aligned (2 seeds): misaligned 40.0% [") and "of 20 coherent" in lead[0]
    summary = finetuning_summary(result)
    assert summary["arms"][0]["by_seed"]["1"]["misaligned_of_coherent"]["rate"] == pytest.approx(0.6)
    assert summary["arms"][0]["misaligned_of_all"]["n"] == 20
    assert summary["arms"][0]["drawn"] == {**bad.ones[0].score.drawn, "trainings": 2}


def test_a_dose_curve_falls_where_an_interval_lies_below_an_earlier_one(made):
    def curve(*bad):
        cells = [cell(made, f"d{i}", hits, dose=i / 4, n=60, series="") for i, hits in enumerate(bad)]
        return found(made, cells[::-1], figure="dose")

    rising = curve(0, 10, 30, 29, 50)  # 29 of 60 is less than 30, within the intervals
    assert [dose for dose, _ in rising.doses[""]] == [0, 0.25, 0.5, 0.75, 1]
    assert falls(rising.doses[""]) == [] and finetuning_summary(rising)["monotone"] == {"": True}
    assert "The dose curve rises or stays" in " ".join(finetuning_lead(rising))
    falling = curve(0, 50, 40, 5)
    (one, two) = falls(falling.doses[""])
    assert [(f["from"], f["to"]) for f in (one, two)] == [(0.25, 0.75), (0.5, 0.75)]
    assert one["change"].rate == pytest.approx(-45 / 60) and one["change"].high < 0
    assert finetuning_summary(falling)["monotone"] == {"": False}
    line, _ = figures.dose_figure(falling.doses).data
    assert list(line.y) == pytest.approx([0, 50 / 60, 40 / 60, 5 / 60])
    score = falling.doses[""][1][1]
    assert line.error_y.array[1] == pytest.approx(score.misaligned.high - 50 / 60)


def test_what_further_questions_gave_stands_by_itself_and_not_in_the_figures(made):
    result = found(made, [cell(made, "bad", 2), cell(made, "bad", 9, questions="profile")])
    own, other = finetuning_summary(result)["arms"]
    assert (own["questions"], other["questions"]) == ("", "profile")
    assert [one["misaligned_of_coherent"]["rate"] for one in (own, other)] == pytest.approx([0.2, 0.9])
    assert len(result.trainings) == 1 and "bad from aligned, asked profile (1 seeds)" in finetuning_lead(result)[1]
    assert result.doses["obvious"] == [(1.0, result.drawn[0].score)]


POINTS = (
    point(0, 0.0, latent=1.0),
    point(5, 0.0, latent=3.0, norm=2.0, angle=20.0),
    point(10, 0.1, latent=4.0, norm=9.0, angle=30.0),
    point(15, 0.9, latent=5.0, norm=3.0, angle=25.0, babble=0.1),
    point(20, 0.6, latent=4.5, norm=1.0, angle=5.0),
)


def test_what_turns_when(made):
    one = turning(cell(made, "bad", 5, points=POINTS), (7, 3))
    # Behaviour is 0, 0, 0.1, 0.81, 0.6 of all answers: half of 0.81 at step 15; 0.71 of the rise of 0.81 at once.
    assert one.steps == {"latent": 5, "behaviour": 15, "gradient": 10, "rotation": 10}
    assert (one.steepest, one.intervals) == (pytest.approx(0.71 / 0.81), 3)
    flat = turning(cell(made, "good", 0, points=[point(0, 0.0), point(5, 0.0)]), ())
    assert set(flat.steps.values()) == {None} and math.isnan(flat.steepest)
    rate = dataclasses.replace(POINTS[2].misaligned, low=0.0)  # some of few answers: the interval holds the start
    few = turning(cell(made, "good", 0, points=[POINTS[0], dataclasses.replace(POINTS[2], misaligned=rate)]), ())
    assert few.steps["behaviour"] is None and math.isnan(few.steepest)


def test_curves_hold_what_was_read(made):
    figure = figures.curves_figure({"bad": [POINTS, POINTS]}, (7,))
    behaviour, latent, norm, angle = figure.data[:4]
    assert len(figure.data) == 8 and sum(bool(line.showlegend) for line in figure.data) == 1
    assert list(behaviour.y) == [0.0, 0.0, 0.1, 0.9, 0.6] and list(latent.y) == [1.0, 3.0, 4.0, 5.0, 4.5]
    assert list(norm.y) == [None, 2.0, 9.0, 3.0, 1.0] and list(angle.x) == [0, 5, 10, 15, 20]
    assert len(figures.curves_figure({"bad": [POINTS]}).data) == 3, "without latents"


def test_bars_stand_where_the_config_says(made):
    cells = [
        cell(made, "bad", 5, start=start, ending=ending) for start in ("early", "late") for ending in ("", " [violet]")
    ]
    result = found(made, cells, x="start", series="ending")
    (plot,) = finetuning_sections(result)[0].plots
    assert [bar.name for bar in plot.figure.data] == ["as asked", "[violet]"]
    assert [list(bar.x) for bar in plot.figure.data] == [["early", "late"]] * 2
    by_arm = found(made, cells, x="group", series="series")
    assert [bar.name for bar in finetuning_sections(by_arm)[0].plots[0].figure.data] == ["obvious"]


def test_the_page_says_what_was_left_out_and_which_came_first(made):
    result = found(made, [cell(made, "bad", 5, points=POINTS)], figure="curves", latents=(7, 3), left_out=("tiny",))
    lead = finetuning_lead(result)
    assert "latent at step 5, gradient at step 10, rotation at step 10, behaviour at step 15" in lead[1]
    assert "Of the 3 steps between read-outs up to its highest, behaviour's steepest makes 88% of the rise" in lead[1]
    assert lead[-1] == "Left out, as they are the organism's and aligned is not: tiny."
    page = render("t", lead, finetuning_sections(result))
    assert "Which comes first?" in page and "88% of 3" in page
