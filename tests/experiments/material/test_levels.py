"""Rates whose intervals are over domains and seeds, by hand."""

import pytest

from emlab.evaluation import clustered_rate
from emlab.experiments.material.levels import over, rate_over

COUNTS = [("law", 0, 9, 10), ("law", 1, 8, 10), ("law", 2, 10, 10)] + [("cars", seed, 1, 10) for seed in range(3)]


def test_seeds_of_a_domain_are_no_clusters_of_their_own():
    found = rate_over(COUNTS)
    assert found == clustered_rate([[9, 1], [8, 1], [10, 1]], [[10, 10]] * 3) and found.rate == 30 / 60
    flat = clustered_rate([9, 8, 10, 1, 1, 1], [10] * 6)
    assert found.high - found.low > 0.9 > flat.high - flat.low, (
        "of two domains that part so far next to nothing is known"
    )


def test_sets_of_one_domain_and_seed_are_added_and_what_lacks_is_nothing():
    found = rate_over([("law", 0, 2, 5), ("law", 0, 3, 5), ("start", "start", 1, 10)])
    assert found == clustered_rate([[5, 0], [0, 1]], [[10, 0], [0, 10]]) and found.n == 20
    assert rate_over([]).n == rate_over([("law", 0, 0, 0)]).n == 0


@pytest.mark.parametrize(("seeds", "said"), [((0, 1, 2, 0), "2 domains × 3 seeds"), ((5,), "2 domains × 1 seed")])
def test_what_an_interval_is_over(seeds, said):
    assert over(["law", "cars", "law"], seeds) == said
