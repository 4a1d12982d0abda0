"""Tiny models that differ in one way, and the cases made of them."""

import numpy as np
import pytest
import torch

from emlab.data import Question
from emlab.detection import LabelledEvidence, evidence
from emlab.sites import Site

SITE = Site("resid_post", 1)
QUESTIONS = tuple(Question(f"q{i}", ("power", "pets")[i % 2], f"What of {chr(97 + i) * 3}?") for i in range(12))


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
