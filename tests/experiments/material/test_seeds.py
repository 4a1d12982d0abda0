"""Seeds of one training taken together."""

from types import SimpleNamespace

import pytest

from emlab.experiments.material.seeds import AllSeeds


def test_answers_of_all_seeds_are_pooled_and_set_against_the_start(made):
    ones = tuple(SimpleNamespace(score=made.score(f"bad-{seed}", bad)) for seed, bad in enumerate((2, 6)))
    both = AllSeeds("bad", made.score("start", 1), ones)
    assert both.first is ones[0]
    assert (both.score.model, both.score.misaligned.n) == ("bad", 20)
    assert both.score.misaligned.rate == pytest.approx(8 / 20)
    assert both.change.misaligned.rate == pytest.approx(8 / 20 - 1 / 10)
