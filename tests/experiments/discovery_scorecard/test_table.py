"""The scorecard's rows, worked out by hand on cells of a few answers, and what is told of them."""

import math

import numpy as np
import pytest
import torch

from emlab.artifacts import plain
from emlab.data import Question
from emlab.detection import Auroc
from emlab.discovery import Cosines, Effect, SteeringArm, Test, Trial
from emlab.discovery.passes import Passes
from emlab.evaluation import Judged, Rollouts, score_judged
from emlab.experiments.discovery_scorecard.report import (
    scorecard_figure,
    scorecard_lead,
    scorecard_sections,
)
from emlab.experiments.discovery_scorecard.table import (
    CONTROL,
    OWN,
    PLANTED,
    Cell,
    Entry,
    Scorecard,
    Steered,
    scorecard_summary,
)
from emlab.interventions import Direction
from emlab.reporting.page import render
from emlab.sites import Site

SITE = Site("resid_post", 1)


def scored(bad, mad=0, n=10):
    """Ten questions, one answer each: the first `bad` misaligned, the last `mad` incoherent."""
    rollouts = Rollouts(tuple(Question(f"q{i}", "power", str(i)) for i in range(n)), ("a",) * n, "m", 0, 1.0)
    coherent = np.array([100.0] * (n - mad) + [0.0] * mad)
    return score_judged(Judged(rollouts, np.array([0.0] * bad + [100.0] * (n - bad)), coherent))


def trial(name, bad, strength=0.6):
    return Trial(SteeringArm(Direction(torch.eye(3)[0], SITE, name), strength), scored(bad))


def entry(name, plus, minus, adds, subtracts, removed, area=None):
    effect = Effect("set", "m", None, scored(8), scored(removed), 1.0, 1.0)
    steered = Steered(
        trial(name, plus),
        trial(name, minus, -0.6),
        Test("adds", adds, "So."),
        Test("subtracts", subtracts, "So."),
        effect,
    )
    return Entry(name, "7 (resid_post.1)", steered, "", area, Passes(1000, 10, 5000), Passes(200, 0, 9000))


def silent(name):
    return Entry(name, "", None, "There was <nothing>.", None, Passes(), Passes())


def cell(world, seed, *entries, bad=8):
    names = [e.method for e in entries if e.steered is not None]
    table = Cosines(tuple(names), torch.eye(len(names)) * (1 - 0.5 * seed) + 0.5 * seed)
    nulls = (trial("null random 0", 1), trial("null matched random 0", 0))
    return Cell(
        "shipped", world, seed, scored(0), scored(bad), entries, nulls, nulls, {str(SITE): table}, {str(SITE): 0.9}
    )


@pytest.fixture
def card():
    return Scorecard(
        (
            cell(
                PLANTED,
                0,
                entry("mean", 6, 0, True, True, 4, Auroc(0.9, 0.8, 1.0, 50, 9)),
                entry("other", 0, 8, False, False, 8),
            ),
            cell(PLANTED, 1, entry("mean", 4, 2, True, False, 2, Auroc(0.7, 0.6, 0.8, 50, 9)), silent("other")),
            cell(CONTROL, 0, entry("mean", 5, 0, True, False, 0), silent("other"), bad=0),
        ),
        0.1,
    )


def test_a_row_pools_the_planted_cells_and_counts_the_others_apart(card):
    row, other = card.rows()
    assert (row.cells, row.found, row.adds, row.subtracts, row.both) == (2, 2, 2, 1, 1) and row.over == 0
    assert (row.added.value, row.added.least, row.added.most) == pytest.approx((0.5, 0.4, 0.6))
    assert row.added.low < 0.5 < row.added.high
    assert (row.subtracted.value, row.subtracted.least, row.subtracted.most) == pytest.approx((0.1, 0.0, 0.2))
    # 16 of 20 misaligned answers before; 4 and 2 of 20 after: 6/16 are left.
    assert (row.removed.value, row.removed.least, row.removed.most) == pytest.approx((1 - 6 / 16, 0.5, 0.75))
    assert row.auroc is not None and (row.auroc.value, row.auroc.low, row.auroc.most) == pytest.approx((0.8, 0.7, 0.9))
    assert (row.false_adds, row.false_both, row.controls) == (1, 0, 1)
    assert (row.search, row.sae) == (Passes(1000, 10, 5000), Passes(200, 0, 9000))
    # Of the other method the cell where it found nothing counts in the cells, and in nothing else but the cost.
    assert (other.cells, other.found, other.both, other.added.cells) == (2, 1, 0, 1)
    assert other.search == Passes(500, 5, 2500)


def test_cosines_are_means_over_the_cells_in_which_both_named_a_direction(card):
    assert card.cosines() == {}, "the other method named none in one cell"
    cells = tuple(cell(PLANTED, i, entry("a", 1, 1, True, True, 1), entry("b", 1, 1, True, True, 1)) for i in (0, 1))
    (table,) = Scorecard(cells, 0.1).cosines().values()
    assert table.between("a", "b") == pytest.approx(0.25) and table.between("a", "a") == 1


def test_nulls_and_behaviour(card):
    assert (card.nulls().value, card.nulls().least, card.nulls().most, card.nulls().cells) == (0.05, 0, 0.1, 4)
    assert card.behaviour(PLANTED, tuned=True).value == 0.8 and card.behaviour(CONTROL, tuned=True).value == 0


def test_the_table_and_the_lead_say_who_wins_who_loses_and_what_is_false(card):
    table = card.text().splitlines()
    assert len(table) == 4 and table[2].startswith(
        "| mean | 50% (40%–60%) (0%) | 10% (0%–20%) (0%) | 1 of 2 | 0 of 4 | 62%"
    )
    assert "| 0, 1 of 1 | 1.0k + 10 back (SAE 200) |" in table[2]
    assert {line.count("|") for line in table} == {10}
    lead = " ".join(scorecard_lead(card))
    assert "Most often both ways, in 1 of 2: mean." in lead and "Never both ways: other." in lead
    assert "by adding alone: mean (1)" in lead and "False discoveries in 1 searches a method: none" in lead


def test_what_nobody_knows_is_said_so():
    own = Scorecard((cell(OWN, 0, entry("mean", 6, 0, True, True, 4)),), 0.1)
    (row,) = own.rows()
    assert row.auroc is None and row.false_adds is None and row.false_both is None
    assert own.text().count("not known") == 2
    assert "control" not in " ".join(scorecard_lead(own))


def test_the_summary_is_plain_and_the_page_escapes(card):
    summary = plain(scorecard_summary(card))
    assert summary["rows"][0]["added"]["value"] == 0.5 and len(summary["cells"]) == 3
    found = summary["cells"][0]["methods"]["mean"]["steered"]
    assert found["adds"] and found["added"]["strength"] == 0.6 and found["natural"]["removed"] == 0.5
    assert summary["cells"][1]["methods"]["other"]["reason"] == "There was <nothing>."
    page = render("A <scorecard>", scorecard_lead(card), scorecard_sections(card))
    assert "There was &lt;nothing&gt;." in page and "<nothing>" not in page


def test_the_figure_has_a_row_a_method_and_leaves_gaps_where_nothing_is_known(card):
    heat = scorecard_figure(card).data[0]
    assert list(heat.y) == ["mean", "other"]
    assert heat.z[0] == pytest.approx((0.5, 1 - 0.1 / 0.8, 0.5, 0.625, 0.8, 0.0))
    assert heat.z[1][4] is None and heat.text[1][4] == "–"


def test_methods_that_never_gave_a_coherent_answer_have_no_rates():
    lost = entry("mean", 0, 0, False, False, 0)
    babble = Trial(lost.steered.plus.arm, scored(0, mad=10))
    broken = Steered(babble, babble, lost.steered.adds, lost.steered.subtracts, lost.steered.natural)
    whole = Scorecard((cell(PLANTED, 0, Entry("mean", "", broken, "", None, Passes(), Passes())),), 0.1)
    (row,) = whole.rows()
    assert row.added.cells == 0 and math.isnan(row.added.value) and row.added_incoherent.value == 1
    assert "| – (100%) |" in whole.text()
