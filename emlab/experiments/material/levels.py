"""Rates over fine-tunes, or mixes, of several domains and seeds: those of a domain, or of a seed, may be alike."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np

from emlab.evaluation import Rate
from emlab.evaluation.intervals import clustered_rate


def rate_over(counts: Iterable[tuple[Hashable, Hashable, float, int]]) -> Rate:
    """The share of all hits, with its interval over domains and over seeds.

    Args:
        counts: Domain, seed, hits, and what these are of, of each fine-tune or mix.
    """
    found = list(counts)
    domains, seeds = (list(dict.fromkeys(one[i] for one in found)) for i in (0, 1))
    hits, totals = np.zeros((2, len(seeds), len(domains)))
    for domain, seed, hit, total in found:
        at = seeds.index(seed), domains.index(domain)
        hits[at] += hit
        totals[at] += total
    return clustered_rate(hits, totals)


def over(domains: Iterable[Hashable], seeds: Iterable[Hashable]) -> str:
    """What such an interval is over: "2 domains × 3 seeds"."""
    counted = ((len(set(domains)), "domain"), (len(set(seeds)), "seed"))
    return " × ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in counted)
