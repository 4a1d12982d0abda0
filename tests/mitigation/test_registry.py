"""Remedies by name: the order in which they are shown, and what a new one must say of itself."""

from dataclasses import dataclass

import pytest

from emlab.errors import EmlabError
from emlab.mitigation import REMEDIES, Remedy, Steering, remedies, remedy


@pytest.fixture(autouse=True)
def _undo(monkeypatch):
    REMEDIES.names()
    monkeypatch.setattr(REMEDIES, "_known", dict(REMEDIES._known))


def mine(name, place, anew=False):
    """A remedy of another package, made known."""
    remedy(type(f"Mine{name}", (Remedy,), {"name": name, "place": place, "anew": anew}))


def test_emlabs_own_stand_in_their_order():
    """Those that treat the model, then those that train anew; within each kind they are counted from 1."""
    own = [kind for kind in remedies() if kind.__module__.startswith("emlab.")]
    assert [kind.__name__ for kind in own] == [
        *("Steering", "Ablation", "MeanAblation", "BakedAblation", "RealignmentInDomain", "RealignmentOutOfDomain"),
        *("ConceptAblation", "PreventativeSteering", "LatentPenalty", "Inoculation", "Interleaving", "Divergence"),
        *("EarlyStopping", "Filtering"),
    ]
    assert [kind.place for kind in own] == [*range(1, 7), *range(1, 9)]


def test_others_stand_by_their_kind_then_their_place_then_their_name():
    for name, place, anew in (("b", 100, False), ("a", 100, False), ("c", 0, True), ("z", 0, False)):
        mine(name, place, anew)
    names = [kind.name for kind in remedies()]
    assert names[0] == "z" and names[7:10] == ["a", "b", "c"] and names[6] == "re-alignment, out of domain"
    assert Remedy.place == 100, "where nothing is said, after emlab's own"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"needs": ("kindness",)}, "needs 'kindness'; there are directions, latents, "),
        ({"needs": ("directions", "origin")}, "needs 'origin'; there are directions, latents, "),
        ({"setting": "strength", "values": (1,)}, "has the setting 'strength'; give it a field of that name"),
        ({"setting": "n"}, "has the setting 'n'; give it a field of that name, and values"),
    ],
)
def test_a_remedy_that_names_what_is_not_there_is_refused(body, said):
    @dataclass(frozen=True)
    class Base(Remedy):
        n: int = 1

    with pytest.raises(EmlabError, match=said):
        remedy(type("Mine", (Base,), {"name": "x", **body}))
    assert "Mine" not in REMEDIES.names()
    remedy(type("Mine", (Base,), {"name": "x", "needs": ("directions",), "setting": "n", "values": (1,)}))
    assert "Mine" in REMEDIES.names()


def test_two_remedies_of_one_name_in_tables_are_refused():
    remedy(type("Twin", (Steering,), {}))
    with pytest.raises(EmlabError, match="Steering and Twin are both called 'steering'; rename one"):
        remedies()
