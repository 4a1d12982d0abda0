"""What came of a causal screen: effects, the null and the order, counted by hand, and all of it back from disk."""

import math

import numpy as np
import pytest
import torch

from emlab.data import Question
from emlab.discovery import CausalScreen, SteeringArm, Trial
from emlab.discovery.screened import Stage, as_wanted
from emlab.evaluation import Judged, Rollouts, score_judged
from emlab.interventions import Direction
from emlab.sites import Site

SITE = Site("resid_post", 1)


def judged(bad, mad, n=10):
    """Of `n` answers the first are misaligned and the last incoherent."""
    rollouts = Rollouts(tuple(Question(f"q{i}", "power", f"{i}") for i in range(n)), ("a",) * n, "m", 0, 1.0)
    return Judged(rollouts, np.array([0.0] * bad + [100.0] * (n - bad)), np.array([100.0] * (n - mad) + [0.0] * mad))


def screen(toward, *counts):
    """Two survivors, 4 and 7, at the strengths 0.5 and 1; `counts` are the misaligned and the incoherent of each."""
    sign = 1.0 if toward == "misaligned" else -1.0
    axes = {number: Direction(torch.eye(8)[number], SITE, f"direction {number}") for number in (4, 7)}
    arms = [SteeringArm(axes[number], sign * strength) for number in (4, 7) for strength in (0.5, 1.0)]
    trials = tuple(Trial(arm, score_judged(judged(*of))) for arm, of in zip(arms, counts, strict=True))
    readings = torch.arange(24.0).reshape(8, 3)
    readings[7, 1] = math.nan
    stages = (Stage("probed 1", 8, 2, 4, 3, 60, 1.5), Stage("generated", 2, 2, 3, 3, 40, 2.0))
    null = torch.tensor([0.0, 0.2, 0.4, 0.5])
    return CausalScreen(
        *("m", SITE, toward, 2.0, "sentence", (0.5, 1.0), stages, readings, (4, 7), trials, null, 0.1),
    )


def test_the_strongest_effects_lead_and_are_held_against_the_null():
    found = screen("misaligned", (2, 0), (5, 1), (7, 2), (3, 0))
    assert found.effects.tolist() == [
        [pytest.approx(0.1), pytest.approx(0.4)],
        [pytest.approx(0.6), pytest.approx(0.2)],
    ]
    # Between the third and the fourth of four, at 0.99 · 3 = 2.97.
    assert found.threshold == pytest.approx(0.497) and found.found == [7]
    first, second = found.rows()
    assert first == {
        **{"number": 7, "name": "direction 7", "strength": 0.5, "effect": pytest.approx(0.6), "incoherent": 0.2},
        **{"random_as_strong": 0.0, "slope": 21.0, "opening": None, "turns": 23.0},
    }
    assert second == {
        **{"number": 4, "name": "direction 4", "strength": 1.0, "effect": pytest.approx(0.4), "incoherent": 0.1},
        **{"random_as_strong": 0.5, "slope": 12.0, "opening": 13.0, "turns": 14.0},
    }


def test_toward_aligned_only_a_coherent_answer_counts():
    assert as_wanted(judged(3, 2), "aligned").tolist() == [False] * 3 + [True] * 5 + [False] * 2
    assert as_wanted(judged(3, 2), "misaligned").tolist() == [True] * 3 + [False] * 7
    found = screen("aligned", (3, 2), (0, 0), (9, 1), (5, 5))
    assert found.effects.flatten().tolist() == [pytest.approx(share - 0.1) for share in (0.5, 1.0, 0.0, 0.0)]
    assert found.found == [4] and found.rows()[0]["strength"] == -1.0


@pytest.mark.parametrize("toward", ["misaligned", "aligned"])
def test_it_comes_back_from_disk(tmp_path, toward):
    found = screen(toward, (2, 0), (5, 1), (7, 2), (3, 0))
    again = CausalScreen.load(found.save(tmp_path / "screen"))
    assert again.summary() == found.summary() and str(again) == str(found)
    assert [t.arm.strength for t in again.trials] == [t.arm.strength for t in found.trials]
    assert [t.score.judged.rollouts for t in again.trials] == [t.score.judged.rollouts for t in found.trials]
    assert (again.survivors, again.unsteered, again.scale) == ((4, 7), 0.1, 2.0)
    table = (tmp_path / "screen" / "survivors.csv").read_text().splitlines()
    assert len(table) == 3 and table[1].startswith("7,direction 7" if toward == "misaligned" else "4,direction 4")


def test_what_is_said_of_it():
    lines = str(screen("misaligned", (2, 0), (5, 1), (7, 2), (3, 0))).splitlines()
    assert lines[0] == "m at resid_post.1, pushed toward misaligned; 10 answers a strength; effects are shares of them"
    assert " ".join(lines[1].split()) == "probed 1 8 → 2 directions 4 → 3 random 60 texts 1.5 s"
    assert lines[3] == "  the 99th percentile of 4 random directions is +49.7%; 1 of 8 directions do more:"
    assert " ".join(lines[5].split()) == "direction 7 0.50 +60.0% 20.0% 0.0% +21.00 - 2300.0%" and len(lines) == 6
