"""What is random in a training step follows from the seed and the step's number, and from nothing that went before."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

from emlab import artifacts


def seed_of_step(seed: int, step: int) -> int:
    """The seed (64 bits) of a step."""
    return int(artifacts.content_hash([seed, step]), 16)


def seed_generators(seed: int) -> None:
    """Start the global generators of random, NumPy and torch at `seed`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**63)


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Inside, the global generators may be seeded and drawn from; afterwards they are as they were."""
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
