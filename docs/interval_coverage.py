"""How often the interval of a rate holds the truth, in a simulation: docs/interval_coverage.json.

    python docs/interval_coverage.py        # ten minutes on one core

Answers come in clusters whose shares are beta-distributed around the truth with an intraclass correlation, as answers
to the questions of one domain do. Each cell draws so many samples, and counts those whose interval
(`emlab.evaluation.intervals.clustered_rate`) holds the truth, and those whose interval ends below it.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from emlab import artifacts
from emlab.evaluation.intervals import clustered_rate
from emlab.provenance import Ledger, provenance, versions

OUT = Path(__file__).with_name("interval_coverage.json")
DRAWS = 1000
TRUTHS, CORRELATIONS, CLUSTERS, ANSWERS = (0.02, 0.05, 0.1, 0.2, 0.4), (0.0, 0.3, 0.6), (5, 10, 20), (32, 96)


def cell(truth: float, icc: float, clusters: int, answers: int) -> dict[str, float]:
    """The shares of draws whose interval holds the truth, and whose interval lies below it."""
    rng, shape = np.random.default_rng([round(100 * truth), round(10 * icc), clusters, answers]), (DRAWS, clusters)
    alike = 1 / icc - 1 if icc else 0.0
    shares = rng.beta(truth * alike, (1 - truth) * alike, shape) if icc else np.full(shape, truth)
    found = [clustered_rate(hits, [answers] * clusters) for hits in rng.binomial(answers, shares)]
    holds = float(np.mean([one.low <= truth <= one.high for one in found]))
    below = float(np.mean([one.high < truth for one in found]))
    return {"truth": truth, "icc": icc, "clusters": clusters, "answers": answers, "holds": holds, "below": below}


def main() -> None:
    """Simulate every cell and write the file."""
    ledger = Ledger()
    settings = {"draws": DRAWS, "truths": TRUTHS, "icc": CORRELATIONS, "clusters": CLUSTERS, "answers": ANSWERS}
    cells = [cell(*each) for each in itertools.product(TRUTHS, CORRELATIONS, CLUSTERS, ANSWERS)]
    told = provenance(settings, ledger.processes())
    kept = {"setting": settings, "cells": cells, "versions": versions(), "provenance": told}
    artifacts.write_json(OUT, artifacts.plain(kept))


if __name__ == "__main__":
    main()
