"""What a setting is known by when it is chosen, and where the bounds lie that it must keep to."""

from types import SimpleNamespace

import pytest
import torch

from emlab.evaluation import Rate
from emlab.evaluation.rates import NO_RATE
from emlab.interventions import Direction
from emlab.mitigation import Materials, Steering, Treatment, choose_setting
from emlab.mitigation.choosing import Tried, tried
from emlab.sites import Site


def found(loss, **frames):
    """A retest with (misaligned, incoherent) rates by frame; None of either where there is no coherent answer."""

    def rate(share):
        return NO_RATE if share is None else Rate(share, share, share, 10)

    judged = SimpleNamespace(rollouts=SimpleNamespace(questions=()))
    scores = {
        name: SimpleNamespace(judged=judged, misaligned=rate(bad), incoherent=rate(mad))
        for name, (bad, mad) in frames.items()
    }
    return SimpleNamespace(scores=scores, ability_loss=loss)


def test_a_setting_is_known_by_its_worst_frame():
    row = tried(0.3, found(1.5, broad=(0.1, 0.2), training=(0.4, 0.05)))
    assert row == Tried(value=0.3, misaligned=0.4, incoherent=0.2, ability_loss=1.5)


def test_a_frame_without_a_coherent_answer_counts_as_misaligned():
    row = tried(0.3, found(1.5, broad=(0.1, 0.2), training=(None, None)))
    assert (row.misaligned, row.incoherent) == (1.0, 1.0)


def chosen(untreated, *rows, **bounds):
    """Which of the settings 1, 2, … is chosen, by their (misaligned, incoherent, loss)."""
    push = Direction(torch.eye(2)[0], Site("resid_post", 0), "push")
    case = Treatment(SimpleNamespace(kind="supervised"), None, Materials("by hand", (push,)))
    each = iter([found(loss, broad=(bad, mad)) for bad, mad, loss in rows])
    values = [float(i + 1) for i in range(len(rows))]
    remedy, _ = choose_setting(Steering(), values, case, lambda _: next(each), Tried(0, *untreated), **bounds)
    return remedy.strength


@pytest.mark.parametrize(
    ("untreated", "rows", "strength"),
    [
        # Within two points of the lowest rate is like it; three points are not.
        ((0.5, 0.0, 1.0), [(0.12, 0.0, 1.0), (0.11, 0.0, 1.0), (0.10, 0.0, 1.0)], 1.0),
        ((0.5, 0.0, 1.0), [(0.13, 0.0, 1.0), (0.115, 0.0, 1.0), (0.10, 0.0, 1.0)], 2.0),
        # A twentieth of an untreated 60% is 3%, which is enough although another setting reaches 0.
        ((0.6, 0.0, 1.0), [(0.031, 0.0, 1.0), (0.03, 0.0, 1.0), (0.0, 0.0, 1.0)], 2.0),
        # The cap on incoherence is 10%, or what the untreated model has; exactly that is allowed.
        ((0.5, 0.0, 1.0), [(0.0, 0.11, 1.0), (0.0, 0.10, 1.0)], 2.0),
        ((0.5, 0.3, 1.0), [(0.0, 0.31, 1.0), (0.0, 0.30, 1.0)], 2.0),
        # The loss may be a twentieth higher than untreated.
        ((0.5, 0.0, 2.0), [(0.0, 0.0, 2.11), (0.0, 0.0, 2.09)], 2.0),
        ((0.5, 0.0, 2.0), [(0.5, 0.0, 2.0), (0.0, 0.0, 2.09)], 2.0),
        # Where none keeps to the bounds, the least loss of ability, however misaligned.
        ((0.5, 0.0, 1.0), [(0.0, 0.9, 1.3), (0.4, 0.9, 1.2), (0.1, 0.9, 1.25)], 2.0),
    ],
)
def test_the_bounds(untreated, rows, strength):
    assert chosen(untreated, *rows) == strength


def test_the_bounds_are_given():
    rows = [(0.0, 0.2, 1.2), (0.1, 0.0, 1.0)]
    assert chosen((0.5, 0.0, 1.0), *rows) == 2.0
    assert chosen((0.5, 0.0, 1.0), *rows, cap=0.2, room=0.2) == 1.0
