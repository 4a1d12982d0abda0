"""Alarms by hand: a monitor that is early, one that is late, one that is noisy, and one that is always on."""

import dataclasses

import pytest

from emlab import artifacts, records
from emlab.detection import ALWAYS, Curve, Warned, noise, warned
from emlab.errors import EmlabError
from emlab.evaluation import Rate, clustered_rate
from emlab.evaluation.rates import NO_RATE


def rates(*values):
    return tuple(Rate(v, v, v, 100) for v in values)


def curve(seed, early, late, bad=(0.0, 0.02, 0.06, 0.3)):
    noise = (0.0, 9.0, 9.0, 9.0)
    return Curve("bad", seed, (0, 10, 20, 30), rates(*bad), {"early": early, "late": late, "noisy": noise})


BAD = [
    curve(0, (0.0, 2.0, 5.0, 6.0), (0.0, 0.0, 0.0, 3.0)),
    curve(1, (0.0, 0.5, 5.0, 6.0), (0.0, 0.0, 3.0, 3.0)),
    curve(2, (0.0, 0.5, 0.5, 0.5), (0.0, 0.0, 0.0, 0.0), bad=(0.0, 0.01, 0.02, 0.03)),
]
# One reading in a hundred of the controls may be above the threshold: of these 108, one.
QUIET = {"early": (0.0, *([1.0] * 26)), "late": (1.0,) * 27, "noisy": (8.0,) * 26 + (10.0,)}
GOOD = [Curve("good", seed, tuple(range(27)), (), QUIET) for seed in range(4)]


def test_who_is_earlier_and_who_ties():
    early = warned("early", BAD, GOOD[:2], GOOD[2:])
    assert early.alarms == (10, 20, None) and early.behaviour == (20, 20, None)
    assert (early.earlier, early.ties, early.reached, early.threshold, early.quiet) == (1, 1, 2, 1.0, True)
    late = warned("late", BAD, GOOD[:2], GOOD[2:])
    assert late.alarms == (30, 20, None) and (late.earlier, late.ties) == (0, 1)
    assert "earlier on 0 and with the behaviour on 1 of 2, alarms at 30, 20, never, false positives 0.0%" in str(late)


def test_the_threshold_leaves_no_more_than_the_share_above_it():
    noisy = warned("noisy", BAD, GOOD[:2], GOOD[2:])
    # Two of the 54 readings it is set on are at 10, and none may be above: it is 10, which no curve is above.
    assert noisy.threshold == 10.0 and noisy.false_positives.rate == 0.0 and noisy.earlier == noisy.ties == 0
    loose = warned("noisy", BAD, GOOD[:2], GOOD[2:], false_positives=0.05)
    assert loose.threshold == 8.0 and loose.false_positives.rate == pytest.approx(2 / 54) and loose.earlier == 2


def test_false_positives_are_counted_on_other_controls():
    louder = [Curve("good", 9, (0, 1), (), {"early": (1.0, 7.0)}), Curve("good", 8, (0, 1), (), {"early": (0.0, 0.0)})]
    found = warned("early", BAD, GOOD, louder)
    assert found.false_positives == clustered_rate([1, 0], [2, 2]) and not found.quiet
    assert found.earlier == found.ties == 0, "it has lost"


def test_the_first_place_at_the_share_and_above_the_threshold():
    assert (BAD[0].reaches(0.06), BAD[0].reaches(0.07), BAD[0].reaches(0.5)) == (20, 30, None)
    assert (BAD[0].alarm("early", 2.0), BAD[0].alarm("early", 5.0), BAD[0].alarm("early", 6.0)) == (20, 30, None)
    assert BAD[0].alarm(ALWAYS, 9.0) == 0
    mad = dataclasses.replace(BAD[0], rates=(NO_RATE, *BAD[0].rates[1:]))
    assert mad.reaches(0.0) == 10, "where no answer is coherent none is known to be misaligned"


def test_noise_is_drawn_for_each_curve():
    one, same, other = (noise(of, "noise", 0) for of in (BAD[0], BAD[0], BAD[1]))
    assert one.scores["noise"] == same.scores["noise"] != other.scores["noise"]
    assert one.scores["early"] == BAD[0].scores["early"]
    assert noise(BAD[0], "noise", 1).scores["noise"] != one.scores["noise"]


def test_the_threshold_is_of_the_known_controls_and_the_false_positives_of_the_others():
    # The 54 known readings are at 1, so the threshold is 1; of the 27 others five are above it.
    known = [Curve("good", seed, tuple(range(27)), (), {"early": (1.0,) * 27}) for seed in range(2)]
    held = [Curve("good", 2, tuple(range(27)), (), {"early": (1.0,) * 22 + (7.0,) * 5})]
    found = warned("early", BAD, known, held)
    assert (found.threshold, found.false_positives.rate, found.false_positives.n) == (1.0, 5 / 27, 27)
    assert not found.quiet


def test_an_alarm_that_is_always_on_has_lost():
    found = warned(ALWAYS, BAD, GOOD[:2], GOOD[2:])
    assert found.alarms == (0, 0, 0) and found.false_positives.rate == 1.0
    assert not found.quiet and found.earlier == 0 and "it has lost" in str(found)


def test_it_comes_back_from_json():
    found = warned("early", BAD, GOOD[:2], GOOD[2:])
    assert records.restored(artifacts.plain(found), Warned) == found
    assert records.restored(artifacts.plain(BAD[0]), Curve) == BAD[0]


def test_what_does_not_fit():
    for places in ((1, 0), (0, 0), ()):
        with pytest.raises(EmlabError, match="do not rise"):
            Curve("c", 0, places, (), {})
    for values, scores in (((), (1.0,)), (rates(0.5), (1.0, 1.0))):
        with pytest.raises(EmlabError, match="read at 2 places"):
            Curve("c", 0, (0, 1), values, {"m": scores})
    for given in ((BAD, GOOD, []), (BAD, [], GOOD), ([], GOOD, GOOD)):
        with pytest.raises(EmlabError, match="controls of both kinds"):
            warned("early", *given)


def test_a_monitor_at_the_allowed_share_is_quiet():
    at = [Curve("good", 5, tuple(range(100)), (), {"early": (0.0,) * 99 + (9.0,)})]
    found = warned("early", BAD, GOOD[:2], at, false_positives=0.01)
    assert found.false_positives.rate == 0.01 and found.quiet
