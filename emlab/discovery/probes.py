"""Linear probes: the direction by which a logistic regression tells two kinds of activations apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.interventions import Direction
from emlab.models import Activations
from emlab.notebook import Shown

LEAST_PROMPTS = 4
"""With fewer prompts none could be held out and still two kinds be learned."""


@dataclass(frozen=True, eq=False, repr=False)
class Probe(Shown):
    """A fitted probe. Called on activations (…, d_model) it gives log-odds (…), positive for the positive kind."""

    direction: Direction
    """Its `norm` is the log-odds gained by a step of length 1 along it."""
    bias: float
    accuracy: float
    """Share of held-out activations told right; none is of a prompt that was learned from. Chance is `chance`."""
    train_accuracy: float
    chance: float
    """The larger kind's share of the held-out activations."""
    learned: int
    held_out: int
    """Activations learned from, and held out."""

    def __call__(self, h: Tensor) -> Tensor:
        norm = self.direction.norm or 1.0
        return h.float() @ (self.direction.vector * norm).to(h.device) + self.bias

    def __str__(self) -> str:
        return (
            f"probe at {self.direction.site}: {self.accuracy:.1%} of {self.held_out} held-out activations told right "
            f"(chance {self.chance:.1%}, {self.train_accuracy:.1%} of those learned from)"
        )


def linear_probe(
    positive: Activations, negative: Activations, seed: int = 0, held_out: float = 0.25, strength: float = 1.0
) -> Probe:
    """A logistic regression that tells two kinds of activations apart, of the same prompts and the same site.

    All activations of a prompt are on the same side of the split. They are standardised, and the scale is folded into
    the direction.

    Args:
        positive: Of one kind.
        negative: Of the other.
        seed: Draws the split.
        held_out: The share of prompts that is not learned from.
        strength: The inverse of the ℓ2 penalty (scikit-learn's C).

    EmlabError for too few prompts, or sites that differ.
    """
    from sklearn.linear_model import LogisticRegression

    if positive.site != negative.site or positive.values.shape[1] != negative.values.shape[1]:
        raise EmlabError(
            f"A probe cannot tell activations at {positive.site} from others at {negative.site}; read the same site."
        )
    prompts = torch.unique(torch.cat([positive.rows, negative.rows]))
    if len(prompts) < LEAST_PROMPTS:
        raise EmlabError(
            f"A probe needs activations of {LEAST_PROMPTS} prompts or more, not {len(prompts)}; read more."
        )
    if not 0 < held_out < 1:
        raise EmlabError(f"A probe cannot hold out the share {held_out} of its prompts; give one between 0 and 1.")
    order = prompts[torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed))]
    kept_back = order[: min(max(1, round(held_out * len(order))), len(order) - 1)]
    values = torch.cat([positive.values, negative.values]).double()
    labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))]).bool()
    test = torch.isin(torch.cat([positive.rows, negative.rows]), kept_back)
    if len(set(labels[~test].tolist())) < 2 or not bool(test.any()):
        raise EmlabError("A probe needs both kinds among what it learns from, and some held out; read more prompts.")

    mean, spread = values[~test].mean(0), values[~test].std(0, correction=0)
    spread[spread == 0] = 1.0
    scaled = ((values - mean) / spread).numpy()
    model = LogisticRegression(C=strength, max_iter=5000, random_state=seed)
    model.fit(scaled[~test.numpy()], labels[~test].numpy())
    right = torch.from_numpy(model.predict(scaled)) == labels
    weights = torch.from_numpy(model.coef_[0]) / spread
    of_test = labels[test].double().mean()
    return Probe(
        Direction(weights, positive.site, "linear probe"),
        float(model.intercept_[0]) - float(weights @ mean),
        float(right[test].double().mean()),
        float(right[~test].double().mean()),
        float(torch.maximum(of_test, 1 - of_test)),
        int((~test).sum()),
        int(test.sum()),
    )
