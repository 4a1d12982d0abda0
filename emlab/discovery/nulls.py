"""Random directions that are like a model's own activations: the strict null.

Directions drawn from the sphere (`random_directions`) point mostly where a model's activations never go, so that a
found direction beats them by lying where activations do lie. These are drawn from a normal distribution with the
covariance of given activations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.interventions import Direction
from emlab.sites import Site


def matched_directions(n: int, activations: Tensor, site: Site, seed: int, norm: float = 1.0) -> list[Direction]:
    """Random directions with the covariance of `activations`.

    Each points along a sum of the centred activations with independent normal weights, whose covariance is theirs but
    for a factor, exactly and however few there are.

    Args:
        n: How many.
        activations: (tokens, d_model).
        site: Where they were read.
        seed: Everything random follows from it.
        norm: The directions' natural length.

    EmlabError where the activations do not differ.
    """
    if activations.ndim != 2 or len(activations) < 2:
        raise EmlabError(
            f"a covariance needs activations (tokens, d_model) of two tokens or more, not {tuple(activations.shape)}."
        )
    centred = (activations - activations.mean(0)).double().cpu()
    if not bool(centred.any()):
        raise EmlabError(f"the activations at {site} are all the same, so they have no covariance: give other tokens.")
    weights = torch.randn(n, len(centred), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [Direction(row, site, f"matched random {i}", norm=norm) for i, row in enumerate(weights @ centred)]
