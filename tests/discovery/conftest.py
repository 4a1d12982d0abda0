"""Models whose activations are given, and SAEs whose latents are written down."""

from types import SimpleNamespace

import pytest
import torch

from emlab.models.activations import Activations
from emlab.sites import Site

PROMPTS = ["one", "two", "three"]


class GivenModel:
    """A model whose activations are given: one list of token vectors a prompt."""

    def __init__(self, name, *prompts):
        self.name, self.prompts = name, prompts

    def rows(self, prompts, answers=None):
        return [[i] for i, _ in enumerate(prompts)], [1] * len(prompts)

    def activations(self, prompts, site, positions, answers=None):
        # Prompts that have names are known by them, so that they may be asked in any order.
        places = [PROMPTS.index(asked) if asked in PROMPTS else i for i, asked in enumerate(prompts)]
        rows = [(i, v) for i, place in enumerate(places) for v in self.prompts[place]]
        values = torch.tensor([v for _, v in rows], dtype=torch.float32)
        index = torch.tensor([i for i, _ in rows])
        return Activations(values, index, index, index, site)


class GivenSae:
    """Three latents: relu(x0), relu(x1), relu(−x0)."""

    def __init__(self, decoder=None):
        self.cfg = SimpleNamespace(d_in=2, d_sae=3)
        self.W_dec = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]) if decoder is None else torch.tensor(decoder)

    def encode(self, x):
        return torch.stack([x[:, 0], x[:, 1], -x[:, 0]], dim=1).relu()


@pytest.fixture
def given():
    """Two models that read three prompts with one token each, and the SAE for them."""
    return SimpleNamespace(
        aligned=GivenModel("aligned", [(1.0, 0.0)], [(1.0, 0.0)], [(-2.0, 0.0)]),
        insecure=GivenModel("insecure", [(1.0, 3.0)], [(4.0, 1.0)], [(-2.0, 2.0)]),
        prompts=PROMPTS,
        site=Site("resid_post", 1),
        model=GivenModel,
        sae=GivenSae,
    )


class LetterSae:
    """Read before the first block, where an activation is its token's embedding: latent j is `levels[j]`'s value of the
    token, such as {"a": 1.0}, and 0 for all other tokens."""

    def __init__(self, model, *levels):
        weight = model.model.get_input_embeddings().weight.detach()
        self.cfg = SimpleNamespace(d_in=weight.shape[1], d_sae=len(levels))
        self.W_dec = torch.eye(len(levels), weight.shape[1])
        self.rows = [[(weight[model.tokenizer(c)["input_ids"][0]], v) for c, v in one.items()] for one in levels]

    def encode(self, x):
        latents = [sum(v * (x - row).abs().amax(-1).lt(1e-6) for row, v in one) + 0.0 * x[:, 0] for one in self.rows]
        return torch.stack(latents, dim=1)


@pytest.fixture
def letters():
    """letters(model, {"a": 1.0}, …): the SAE, and the site where it reads."""
    return lambda model, *levels: (LetterSae(model, *levels), Site("resid_pre", 0))
