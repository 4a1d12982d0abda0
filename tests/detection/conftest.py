"""Tiny models that differ in one way, and the cases made of them."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emlab.data import Question
from emlab.detection import LabelledEvidence, evidence
from emlab.sites import Site

SITE = Site("resid_post", 1)
QUESTIONS = tuple(Question(f"q{i}", ("power", "pets")[i % 2], f"What of {chr(97 + i) * 3}?") for i in range(12))


class Coordinates:
    """An SAE whose latents are the coordinates, where positive."""

    def __init__(self, d_in):
        self.cfg, self.W_dec = SimpleNamespace(d_in=d_in, d_sae=d_in, metadata={}), torch.eye(d_in)

    def encode(self, x):
        return x.relu()


@contextmanager
def passes(model):
    """Inside the block: the number of rows of each pass through the model."""
    seen = []
    hook = model.model.get_input_embeddings().register_forward_hook(lambda _, args, out: seen.append(len(args[0])))
    try:
        yield seen
    finally:
        hook.remove()


@pytest.fixture(scope="session")
def shifted(tiny):
    """shifted(name, by, seed=0): the tiny model whose second block writes `by` more along one fixed direction."""

    def make(name, by, seed=0):
        model = tiny.copy(name)
        torch.manual_seed(0)
        along = torch.nn.functional.normalize(torch.randn(model.d_model), dim=0)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            down = model.model.model.layers[1].mlp.down_proj
            down.weight += 0.01 * torch.randn(down.weight.shape, generator=generator)
            down.bias = torch.nn.Parameter(by * along)
        return model

    return make


@pytest.fixture(scope="session")
def cases(shifted):
    """Two misaligned fine-tunes and two others in each of two domains, read on their prompts."""
    found = []
    for d, domain in enumerate(("code", "law")):
        for bad in (True, False):
            for seed in range(2):
                model = shifted(f"{domain}-{bad}-{seed}", 8.0 * bad, 10 * d + seed)
                read = evidence(model, QUESTIONS, [SITE])
                found.append(LabelledEvidence(read, np.full(len(QUESTIONS), bad), model.name, domain))
    return found
