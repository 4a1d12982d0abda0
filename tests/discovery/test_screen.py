"""The steering screen, on a model whose answers are a known function of the edit it is given."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from emlab import artifacts
from emlab.data import Question
from emlab.discovery import Screen, ScreenSettings, SteeringArm, Trial, choose, order, steer_screen, steered
from emlab.discovery.screen import _finalists
from emlab.errors import EmlabError
from emlab.evaluation import Judged, Rollouts, Sampling, score_judged
from emlab.interventions import Direction, Steer
from emlab.models import LanguageModel
from emlab.sites import Site

SITE = Site("resid_post", 1)
X, Y = (Direction(torch.tensor(v), SITE, name) for v, name in (([2.0, 0.0], "latent 7"), ([0.0, 1.0], "random 0")))
SCALES = {SITE: 1.2}
DISCOVERY = [Question(f"d{i}", "power", f"discovery {i}") for i in range(4)]
TEST = [Question(f"t{i}", "power", f"test {i}") for i in range(6)]


class Verdict:
    def __init__(self, aligned, coherent):
        self.aligned, self.coherent = aligned, coherent


class WordJudge:
    """Reads the verdict off the answer."""

    def judge(self, question, answer):
        return {"good": Verdict(100, 100), "bad": Verdict(0, 100), "babble": Verdict(0, 0)}[answer.split()[0]]


class Pushed(LanguageModel):
    """Answers badly once the first coordinate is pushed past `turns`, and babbles past `breaks`."""

    name = "toy"

    def __init__(self, turns=1.0, breaks=2.5):
        self.turns, self.breaks, self.calls = turns, breaks, []

    def generate(self, prompts, max_new_tokens, temperature, seed, batch_size, edits):
        (edit,) = edits
        assert isinstance(edit, Steer)
        push = edit.edit(torch.zeros(len(prompts), 1, 2), torch.ones(len(prompts), 1).bool())[:, 0]
        self.calls.append((prompts, {"max_new_tokens": max_new_tokens, "seed": seed}))
        return [
            ("babble" if p.norm() > self.breaks else "bad" if p[0] > self.turns else "good") + f" to {q[-1]['content']}"
            for p, q in zip(push, prompts, strict=True)
        ]


def screen(model, toward="misaligned", directions=(X, Y), strengths=(0.5, 1.0, 2.0), seed=0, **more):
    settings = ScreenSettings(strengths, **more)
    return steer_screen(model, directions, DISCOVERY, TEST, WordJudge(), toward, settings, SCALES, seed)


def test_every_row_gets_its_own_arm():
    trials = steered(
        Pushed(),
        [SteeringArm(X, 0.5), SteeringArm(X, 1.0), SteeringArm(Y, 1.0), SteeringArm(X, 4.0)],
        DISCOVERY,
        WordJudge(),
        SCALES,
    )
    assert [t.score.misaligned.rate for t in trials[:3]] == [0.0, 1.0, 0.0]
    assert trials[3].score.incoherent.rate == 1.0 and trials[3].score.misaligned.n == 0
    assert all(t.score.judged.rollouts.answers[6].endswith("to discovery 2") for t in trials)


def test_strengths_are_in_units_of_the_scale():
    # 1.2 × 0.9 passes 1.0; 1.0 × 0.9 would not.
    for scale, rate in ((1.2, 1.0), (1.0, 0.0)):
        (trial,) = steered(Pushed(), [SteeringArm(X, 0.9)], DISCOVERY, WordJudge(), {SITE: scale})
        assert trial.score.misaligned.rate == rate


def test_the_best_strength_within_the_cap_is_tested_on_other_questions():
    model = Pushed()
    found = screen(model, strengths=(0.5, 1.0, 2.0, 3.0), sampling=Sampling(per_question=2))
    assert [(t.arm.name, t.arm.strength) for t in found.test] == [("latent 7", 1.0), ("random 0", 2.0)]
    assert found.tested("latent 7").score.misaligned.rate == 1.0
    assert found.tested("latent 7").score.total == 12
    assert found.tested("random 0").score.misaligned.rate == 0.0
    assert found.chosen("latent 7").score.total == 4
    assert len(found.discovery) == 8
    first, second, still, tested = ({chat[-1]["content"] for chat in prompts} for prompts, _ in model.calls)
    assert first == second == still and not second & tested
    assert found.unsteered == 0.0


def test_towards_aligned_it_subtracts_and_takes_the_lowest():
    # This model starts out bad and turns good once pushed below −1.
    found = screen(Pushed(turns=-1.0), toward="aligned", directions=[X])
    assert found.test[0].arm.strength == -1.0
    assert found.test[0].score.misaligned.rate == 0.0
    assert [t.score.misaligned.rate for t in found.curve("latent 7")] == [1.0, 0.0, 0.0]


def test_where_everything_babbles_the_least_is_taken_and_it_shows():
    found = screen(Pushed(breaks=0.1))
    assert not found.within_cap("latent 7")
    assert found.test[0].arm.strength == 0.5, "the weakest of equals"
    assert found.test[0].score.misaligned.n == 0
    assert "no answers" in str(found) and "nan" not in str(found)


def trial(strength, bad, n=40, mad=0):
    """The first answers are misaligned, the last ones incoherent."""
    rollouts = Rollouts(tuple(Question(f"q{i}", "power", f"{i}") for i in range(n)), ("a",) * n, "m", 0, 1.0)
    aligned = np.array([0.0] * bad + [100.0] * (n - bad))
    coherent = np.array([100.0] * (n - mad) + [0.0] * mad)
    return Trial(SteeringArm(X, strength), score_judged(Judged(rollouts, aligned, coherent)))


def test_an_arm_that_may_be_over_the_cap_gives_way_to_a_weaker_one_that_keeps_its_effect():
    # 3 of 40 incoherent are 7.5%, and 12.8% one standard error up. 30 of 37 are 81%; four fifths of it are 65%.
    edge = trial(1.5, 30, mad=3)
    assert choose([trial(1.0, 28), edge], "misaligned", 0.1).arm.strength == 1.0
    assert choose([trial(1.0, 25), edge], "misaligned", 0.1).arm.strength == 1.5, "62.5% are too few"
    assert choose([trial(0.5, 27), trial(1.0, 28), edge], "misaligned", 0.1).arm.strength == 1.0, "the next weaker"
    assert choose([trial(1.0, 27), trial(1.5, 30, mad=1)], "misaligned", 0.1).arm.strength == 1.5, "5.8% one up"
    # What counts is how far the rate has moved: from 50% to 0, and four fifths of that is to 10%.
    away = trial(-1.0, 0, mad=3)
    assert choose([trial(-0.5, 4), away], "aligned", 0.1, unsteered=0.5).arm.strength == -0.5
    assert choose([trial(-0.5, 5), away], "aligned", 0.1, unsteered=0.5).arm.strength == -1.0


def test_where_the_rate_without_a_push_is_not_known_all_answers_were_misaligned():
    # From 100% to 0, and four fifths of that is to 20%, 8 of 40.
    away = trial(-1.0, 0, mad=3)
    assert choose([trial(-0.5, 8), away], "aligned", 0.1).arm.strength == -0.5
    assert choose([trial(-0.5, 9), away], "aligned", 0.1).arm.strength == -1.0


def test_over_the_cap_the_least_incoherent_leads_however_misaligned():
    trials = [trial(0.5, 9, mad=30), trial(1.0, 0, mad=40), trial(1.5, 0, mad=20), trial(2.0, 0, mad=4)]
    assert [t.arm.strength for t in order(trials, "misaligned", 0.1)] == [2.0, 1.5, 0.5, 1.0]
    assert choose(trials[:3], "misaligned", 0.1).arm.strength == 1.5


@pytest.mark.parametrize(("toward", "bad", "first"), [("misaligned", 9, "random 1"), ("aligned", 11, "random 1")])
def test_the_rival_to_beat_is_the_one_whose_interval_reaches_furthest(toward, bad, first):
    # 50 of 100 are 40% to 60%; 9 of 20 reach up to 66%, and 11 of 20 down to 34%.
    names = {"latent 7": (99, 0), "random 0": (50, 0), "random 1": (bad, 80), "random 2": (0, 100)}
    tried = []
    for name, (n_bad, mad) in names.items():
        arm = SteeringArm(Direction(torch.ones(2), SITE, name), 1.0)
        tried.append(Trial(arm, trial(1.0, n_bad, n=100, mad=mad).score))
    found = Screen("m", toward, SCALES, 0.1, (), (), tuple(tried))
    assert [t.arm.name for t in found.rivals("random")] == [first, "random 0"], "one without a coherent answer has none"


def test_the_first_round_drops_only_what_is_clearly_over_the_cap():
    # 3 of 20 incoherent are 15%, and 8.7% one standard error down; 5 of 20 are 16.7% there.
    few = [trial(0.5, 4, 20), trial(1.0, 8, 20, mad=3), trial(1.5, 9, 20, mad=5)]
    assert [t.arm.strength for t in order(few, "misaligned", 0.1)] == [0.5, 1.0, 1.5]
    assert [t.arm.strength for t in order(few, "misaligned", 0.1, z=-1.0)] == [1.0, 0.5, 1.5]
    assert [arm.strength for arm in _finalists(few, "misaligned", 0.1, 3)] == [1.0, 0.5]


def test_of_a_contestant_that_shows_nothing_the_strongest_within_the_cap_goes_on():
    # 1 of 20 incoherent are 5%, and 12.1% one standard error up; 2 of 20 are 10%; none are at most 4.8%.
    none = [trial(0.5, 0, 20, mad=2), trial(1.0, 0, 20), trial(1.5, 0, 20), trial(2.0, 0, 20, mad=1)]
    assert [arm.strength for arm in _finalists(none, "misaligned", 0.1, 2)] == [1.5]
    unsure = [trial(1.0, 0, 20, mad=1), trial(1.5, 0, 20, mad=2), trial(2.0, 0, 20, mad=3)]
    assert [arm.strength for arm in _finalists(unsure, "misaligned", 0.1, 2)] == [1.5]
    assert [arm.strength for arm in _finalists(none[1:], "aligned", 0.1, 2)] == [1.0], "the weakest that takes all away"
    mad = [trial(0.5, 0, 20, mad=9), trial(1.0, 0, 20, mad=12)]
    assert [arm.strength for arm in _finalists(mad, "misaligned", 0.1, 2)] == [0.5]


def test_what_cannot_be_told_from_the_leading_arm_wins_if_it_is_weaker():
    # Wilson's interval of 30 of 40 at z = 1 is 0.744 ± 0.069 and begins at 0.675: 27 of 40 is just outside, 28 inside.
    assert choose([trial(0.5, 26), trial(1.0, 28), trial(1.5, 30)], "misaligned", 0.1).arm.strength == 1.0
    assert choose([trial(1.0, 26), trial(1.5, 30)], "misaligned", 0.1).arm.strength == 1.5
    # That of 2 of 40 ends at 0.096: 3 of 40 is inside, 4 is not.
    assert choose([trial(-0.5, 4), trial(-1.0, 3), trial(-1.5, 2)], "aligned", 0.1).arm.strength == -1.0
    leading = order([trial(0.5, 23), trial(1.5, 30), trial(1.0, 24)], "misaligned", 0.1)
    assert [t.arm.strength for t in leading] == [1.5, 1.0, 0.5]


def test_ties_go_to_the_weakest():
    trials = steered(Pushed(), [SteeringArm(X, s) for s in (1.9, 1.0, 1.5)], DISCOVERY, WordJudge(), SCALES)
    assert choose(trials, "misaligned", 0.1).arm.strength == 1.0
    assert choose(trials, "aligned", 0.1).arm.strength == 1.0


class Anything:
    def judge(self, question, answer):
        return Verdict(100, 100)


def test_without_scales_the_models_own_norm_on_the_discovery_questions_is_the_unit(tiny):
    short = ScreenSettings((0.5,), sampling=Sampling(1, max_new_tokens=2))
    x = Direction(torch.eye(tiny.d_model)[0], SITE, "x")
    found = steer_screen(tiny, [x], DISCOVERY, TEST, Anything(), settings=short)
    assert found.scales == {SITE: tiny.residual_norm(SITE, [q.messages for q in DISCOVERY])}


def test_discovery_and_test_are_sampled_with_different_seeds():
    model = Pushed()
    screen(model, seed=7, sampling=Sampling(per_question=3, max_new_tokens=5), first_round=2, finalists=2)
    (asked, first), (again, second), (unsteered, still), (tested, third) = model.calls
    assert (first["seed"], second["seed"], still["seed"], third["seed"]) == (7, 9, 9, 8)
    assert len(unsteered) == 4
    assert first["max_new_tokens"] == second["max_new_tokens"] == third["max_new_tokens"] == 5
    # Of the first round's 2 × 3 arms two of latent 7 and one of the random direction, which moves nothing, go on.
    assert (len(asked), len(again), len(tested)) == (2 * 3 * 2, (2 + 1) * 4, 2 * 6 * 3)


def test_what_is_tested_may_be_another_model():
    chosen_on, other = Pushed(), Pushed(turns=5.0)
    other.name = "other"
    found = steer_screen(
        chosen_on, [X], DISCOVERY, TEST, WordJudge(), settings=ScreenSettings((1.0,)), scales=SCALES, tested=other
    )
    assert (len(chosen_on.calls), len(other.calls), found.model) == (3, 1, "other")
    assert found.chosen("latent 7").score.misaligned.rate == 1.0 and found.test[0].score.misaligned.rate == 0.0
    answers = found.test[0].score.judged.rollouts
    assert (answers.model, answers.seed, answers.temperature) == ("other +1 × latent 7", 1, 1.0)


def test_it_is_saved_with_every_answer_and_as_a_table(tmp_path):
    found = screen(Pushed(breaks=0.1), positions=["sentence", "all"])
    folder = found.save(tmp_path / "plus")
    raw = artifacts.read_json(folder / "screen.json")
    assert raw["scales"] == {"resid_post.1": 1.2} and raw["toward"] == "misaligned"
    assert raw["test"][0]["rate_coherent"] == {"rate": None, "low": None, "high": None}
    lines = (folder / "trials.csv").read_text().splitlines()
    assert len(lines) == 1 + 12 + 2 + 2
    assert lines[-1] == "test,random 0,resid_post.1,sentence,0.5,,1.0000,18,18,0,0"
    again = Screen.load(folder)
    assert [t.row() for t in again] == [t.row() for t in found]
    assert [t.row() for t in again.discovery] == [t.row() for t in found.discovery]
    assert again.test[0].score.judged.rollouts == found.test[0].score.judged.rollouts
    assert [t.row() for t in again.finals] == [t.row() for t in found.finals]
    assert torch.equal(again.tested("random 0").arm.direction.vector, Y.vector)
    assert (again.model, again.toward, again.scales, again.cap, again.unsteered) == (
        "toy",
        "misaligned",
        SCALES,
        0.1,
        0,
    )
    without = dataclasses.replace(found, unsteered=math.nan).save(tmp_path / "without")
    assert math.isnan(Screen.load(without).unsteered)
    assert str(again) == str(found)
    (folder / "screen.json").write_text("{}")
    with pytest.raises(EmlabError, match="holds no screen"):
        Screen.load(folder)


def test_a_direction_at_two_sites_is_one_contestant_whose_site_and_positions_are_chosen():
    # The model turns at 1.0; the second site has the larger scale, so that its weakest push suffices.
    there = Site("resid_post", 2)
    twin = Direction(X.vector, there, X.origin)
    found = steer_screen(
        Pushed(),
        [X, twin, Y],
        DISCOVERY,
        TEST,
        WordJudge(),
        settings=ScreenSettings((0.5, 1.0), ("sentence", "all")),
        scales={SITE: 1.2, there: 2.4},
    )
    assert found.names == ["latent 7", "random 0"]
    assert len(found.grid("latent 7")) == 2 * 2 * 2 and len(found.grid("random 0")) == 2 * 2
    best = found.tested("latent 7").arm
    assert (best.site, best.strength, best.positions) == (there, 0.5, "sentence")
    assert [t.arm.strength for t in found.curve("latent 7")] == [0.5, 1.0]
    assert {(t.arm.site, t.arm.positions) for t in found.curve("latent 7")} == {(there, "sentence")}


def test_it_refuses_what_would_prove_nothing():
    with pytest.raises(EmlabError, match="both the discovery and the test"):
        steer_screen(Pushed(), [X], DISCOVERY, DISCOVERY, WordJudge(), "aligned", scales=SCALES)
    with pytest.raises(EmlabError, match="same name"):
        screen(Pushed(), directions=[X, X])
    with pytest.raises(EmlabError, match="above 0"):
        screen(Pushed(), strengths=[-1.0])
    with pytest.raises(EmlabError, match="above 0"):
        screen(Pushed(), strengths=[0.0, 1.0])
    with pytest.raises(EmlabError, match="nothing to steer"):
        steered(Pushed(), [], TEST, WordJudge(), SCALES)
    with pytest.raises(EmlabError, match="no direction 'latent 8'"):
        screen(Pushed()).tested("latent 8")
