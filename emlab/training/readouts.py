"""Read-outs along a training: behaviour on a few questions, latents of a SAE, and how the adapter turns.

*Turn* is the cosine between two successive changes of what the adapter adds to the weights: 1 where it goes on straight
ahead, 0 where it goes off at a right angle. *Angle* is the largest principal angle between the subspaces that the
adapter writes to now and at the read-out before, a mean over its modules. A sharp rotation is what Turner et al. 2025
("Model organisms for emergent misalignment", arXiv:2506.11613) saw where misalignment sets in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.data import Question
from emlab.data.prompts import as_questions
from emlab.errors import EmlabError
from emlab.evaluation import Judge, StepRates, sample, score
from emlab.evaluation.rates import NO_RATE
from emlab.models import LanguageModel
from emlab.saes import check_site, encode
from emlab.sealing import refuse
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

_B, _A = ".lora_B.weight", ".lora_A.weight"


@dataclass(frozen=True, eq=False)
class Watch:
    """What is read from a model while it is trained, before the first step and after every `every` steps."""

    every: int = 10
    questions: Sequence[Question] = ()
    """Asked once each; and the prompts on which latents are read."""
    judge: Judge | None = None
    """None asks nothing."""
    sae: SAE | None = None
    """None reads no latents."""
    site: Site | None = None
    """Where the SAE reads."""
    latents: tuple[int, ...] = ()
    positions: str = "header"
    max_new_tokens: int = 48
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "questions", tuple(as_questions(self.questions)))
        refuse("to a training to be read on", self.questions)
        if self.every < 1:
            raise EmlabError(f"A training cannot be read every {self.every} steps; give 1 or more.")
        if self.sae is not None and (self.site is None or not self.questions):
            raise EmlabError("Latents are read at a site and on questions; give both.")
        if self.sae is not None and self.site is not None:
            check_site(self.sae, self.site)

    def due(self, step: int) -> bool:
        """Whether step `step` (0: before the first) is read."""
        return step % self.every == 0


@dataclass(frozen=True, kw_only=True)
class ReadOut(StepRates):
    """What was read after a step. Rates of nothing have n = 0; a number that does not exist is nan."""

    latents: Mapping[int, float] = field(default_factory=dict)
    """Mean activation of each latent that is followed, over the questions, in units of what the SAE reads."""
    gradient_norm: float = math.nan
    """Of the step, before clipping."""
    turn: float = math.nan
    """Cosine between the last two changes of the adapter's product (or of all weights), from read-out to read-out."""
    angle: float = math.nan
    """Largest principal angle, in degrees, between what the adapter writes to now and before; adapters only."""


class Reader:
    """Reads a model in training by a `Watch`. It remembers the weights of the two read-outs before."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.past: list[dict[str, Tensor]] = []

    def read(
        self, step: int, model: LanguageModel, weights: dict[str, Tensor], gradient_norm: float = math.nan
    ) -> ReadOut:
        """The read-out after `step`; `weights` are the trained ones, as `trained_weights` gives them."""
        watch = self.watch
        misaligned = incoherent = NO_RATE
        if watch.judge is not None and watch.questions:
            rollouts = sample(model, watch.questions, 1, watch.seed, max_new_tokens=watch.max_new_tokens)
            found = score(rollouts, watch.judge)
            misaligned, incoherent = found.misaligned, found.incoherent
        turn = cosine_of_changes(self.past[-2], self.past[-1], weights) if len(self.past) == 2 else math.nan
        angle = principal_angle(self.past[-1], weights) if self.past else math.nan
        self.past = [*self.past[-1:], weights]
        return ReadOut(
            step=step,
            misaligned=misaligned,
            incoherent=incoherent,
            latents=self._latents(model),
            gradient_norm=gradient_norm,
            turn=turn,
            angle=angle,
        )

    @torch.no_grad()
    def _latents(self, model: LanguageModel) -> dict[int, float]:
        watch = self.watch
        if watch.sae is None or watch.site is None:
            return {}
        read = model.activations([q.messages for q in watch.questions], watch.site, watch.positions)
        values = encode(watch.sae, read.values).mean(0)
        return {latent: float(values[latent]) for latent in watch.latents}


def cosine_of_changes(first: Mapping[str, Tensor], second: Mapping[str, Tensor], third: Mapping[str, Tensor]) -> float:
    """Cosine between (second − first) and (third − second) of what each adds to the weights; nan where one is 0."""
    steps = (first, second, third)
    g = [[inner_product(a, b) for b in steps] for a in steps]
    before = g[1][1] - 2 * g[0][1] + g[0][0]
    after = g[2][2] - 2 * g[1][2] + g[1][1]
    across = g[1][2] - g[1][1] - g[0][2] + g[0][1]
    # What is left of exact zeros by rounding is no change.
    least = 1e-10 * max(g[0][0], g[1][1], g[2][2])
    return across / math.sqrt(before * after) if before > least and after > least else math.nan


def inner_product(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Of what two adapters add, ⟨B₁A₁, B₂A₂⟩ over all modules, without making the products; or of plain weights."""
    total = 0.0
    for name, b in sorted(one.items()):  # in one order, whether they come from a file or from the model
        if name.endswith(_A):
            continue
        if name.endswith(_B):
            a = name.removesuffix(_B) + _A
            inner = (b.T.double() @ other[name].double()) * (one[a].double() @ other[a].double().T)
            total += float(inner.sum())
        else:
            total += float((b.double() * other[name].double()).sum())
    return total


def principal_angle(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> float:
    """Mean over the modules of the largest principal angle (degrees) between the column spaces of B then and now.

    nan where there is no adapter, or where one of the two has not moved yet (B starts at 0).
    """
    angles = []
    for name, b in sorted(now.items()):
        if not name.endswith(_B) or not bool(b.any()) or not bool(before[name].any()):
            continue
        bases = [torch.linalg.qr(m.double())[0] for m in (before[name], b)]
        cosines = torch.linalg.svdvals(bases[0].T @ bases[1])
        angles.append(math.degrees(math.acos(min(1.0, float(cosines.min())))))
    return sum(angles) / len(angles) if angles else math.nan
