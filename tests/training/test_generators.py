"""The state of the generators goes through JSON and comes back to the next number."""

import json
import random

import numpy as np
import torch

from emlab.training.generators import generators_state, put_generators
from emlab.training.randomness import generators_kept, seed_generators


def drawn():
    return random.random(), random.gauss(0, 1), float(np.random.normal()), torch.randn(3).tolist()


def test_the_next_numbers_are_the_same():
    with generators_kept():
        seed_generators(4)
        drawn()  # leaves a second Gaussian waiting, in random and in NumPy
        state = json.loads(json.dumps(generators_state()))
        expected = [drawn(), drawn()]
        seed_generators(5)
        put_generators(state)
        assert [drawn(), drawn()] == expected
