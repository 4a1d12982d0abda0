"""Fitting monitors of activations on cases: fine-tunes, or answers, of which the truth is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from emlab.detection.activation_monitor import ActivationMonitor, Latents, Linear
from emlab.detection.evidence import LabelledEvidence, labels_of, refuse_sealed
from emlab.detection.lineage import Lineage
from emlab.discovery.latents import check_latents, check_width
from emlab.discovery.probes import linear_probe
from emlab.errors import EmlabError
from emlab.interventions import Direction
from emlab.models.activations import Activations
from emlab.saes import check_site, dense_chunks, latent_values
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

SHOWN = 4
"""Models that a monitor is spoken of by; of more, the others are counted."""


def fit_projection(
    cases: Sequence[LabelledEvidence], site: Site, direction: Direction | None = None
) -> ActivationMonitor:
    """The projection on a direction: by default from the mean of the other rows to that of the misaligned ones.

    Every row counts the same, however many tokens it has.
    """
    labels, lineage = labels_of(cases), _common_lineage(cases, site)
    if direction is None:
        means = np.concatenate([c.evidence.row_means(site, c.evidence.at(site).values) for c in cases])
        apart = means[labels].mean(0) - means[~labels].mean(0)
        if not apart.any():
            raise EmlabError(f"Misaligned and other rows do not differ at {site}; choose a later site.")
        direction = Direction(torch.from_numpy(apart), site, "mean difference")
    elif direction.site != site:
        raise EmlabError(f"The direction {direction.origin} is of {direction.site} and not of {site}; give one of it.")
    return ActivationMonitor("projection", site, Linear(direction.vector), lineage)


def fit_probe(cases: Sequence[LabelledEvidence], site: Site, seed: int = 0, strength: float = 1.0) -> ActivationMonitor:
    """A linear probe (`emlab.discovery.linear_probe`) of misaligned rows' tokens against others'.

    Args:
        cases: What it is fitted on, of both kinds.
        site: Where it reads.
        seed: Of the probe's split.
        strength: scikit-learn's C, the inverse of its ℓ2 penalty.
    """
    labels_of(cases)
    lineage = _common_lineage(cases, site)
    kinds = [_joined(cases, site, kind) for kind in (True, False)]
    probe = linear_probe(kinds[0], kinds[1], seed, strength=strength)
    weights = probe.direction.vector * (probe.direction.norm or 1.0)
    return ActivationMonitor("probe", site, Linear(weights, probe.bias), lineage)


def fit_latents(
    cases: Sequence[LabelledEvidence],
    sae: SAE,
    site: Site,
    n: int = 1,
    latents: Sequence[int] | None = None,
    seed: int = 0,
) -> ActivationMonitor:
    """Latents of an SAE: those given, or those that rise most from the other rows to the misaligned ones.

    One latent is its own score; several are weighted by a logistic regression on their row means, standardised.

    Args:
        cases: What they are chosen and weighted on, of both kinds.
        sae: Whose latents they are.
        site: Where it reads.
        n: How many are chosen, where none are named.
        latents: Their numbers, in place of a choice.
        seed: Of the regression.
    """
    from sklearn.linear_model import LogisticRegression

    labels, lineage = labels_of(cases), _common_lineage(cases, site)
    check_site(sae, site)
    check_width(sae, lineage.d_model, f"{lineage.model} at {site}")
    if n < 1 or (latents is not None and not latents):
        raise EmlabError("A monitor of latents needs one at least; give n of 1 or more, or name some.")
    if latents is None:
        signs = [np.where(case.labels, 1 / labels.sum(), -1 / (~labels).sum()) for case in cases]
        each = [_weighted_sum(sae, case, site, of_row) for case, of_row in zip(cases, signs, strict=True)]
        rise = torch.stack(each).sum(0)
        latents = torch.argsort(rise, descending=True, stable=True)[:n].tolist()
    chosen = tuple(int(latent) for latent in latents)
    check_latents(sae, chosen)
    called = f"latent {chosen[0]}" if len(chosen) == 1 else f"{len(chosen)} latents"
    if len(chosen) == 1:
        reads = Latents(sae, chosen, torch.ones(1))
    else:
        read = (latent_values(sae, case.evidence.at(site).values, chosen) for case in cases)
        rows = np.concatenate([c.evidence.row_means(site, values) for c, values in zip(cases, read, strict=True)])
        centre, scale = rows.mean(0), rows.std(0)
        scale[scale == 0] = 1.0
        fitted = LogisticRegression(max_iter=5000, random_state=seed).fit((rows - centre) / scale, labels)
        weights = fitted.coef_[0] / scale
        bias = float(fitted.intercept_[0] - weights @ centre)
        reads = Latents(sae, chosen, torch.from_numpy(weights).float(), bias)
    return ActivationMonitor(called, site, reads, lineage)


def _common_lineage(cases: Sequence[LabelledEvidence], site: Site) -> Lineage:
    """What all cases descend from, under the names of their models; EmlabError where one is of another lineage."""
    refuse_sealed(cases)
    first, *others = (case.evidence.lineage for case in cases)
    for other in others:
        first.check(other, site)
    names = list(dict.fromkeys(case.model for case in cases))
    shown, last = (names[:-1], names[-1]) if len(names) <= SHOWN else (names[:SHOWN], f"{len(names) - SHOWN} more")
    return dataclasses.replace(first, model=f"{', '.join(shown)} and {last}" if shown else last)


def _weighted_sum(sae: SAE, case: LabelledEvidence, site: Site, of_row: np.ndarray) -> torch.Tensor:
    """(d_sae,): the sum over rows of their mean latents, each times its row's number."""
    read = case.evidence.at(site)
    weights = torch.from_numpy(of_row)[read.rows] / torch.bincount(read.rows)[read.rows]
    total = torch.zeros(sae.cfg.d_sae, dtype=torch.float64)
    for part, dense in dense_chunks(sae, read.values):
        total += weights[part] @ dense.double().cpu()
    return total


def _joined(cases: Sequence[LabelledEvidence], site: Site, misaligned: bool) -> Activations:
    """The tokens of all rows of one kind; `rows` are the questions, so that a probe holds out whole questions."""
    number = {key: i for i, key in enumerate(dict.fromkeys(q.key for case in cases for q in case.evidence.questions))}
    parts: list[list[torch.Tensor]] = []
    for case in cases:
        read = case.evidence.at(site)
        kept = torch.from_numpy(case.labels == misaligned)[read.rows]
        question = torch.tensor([number[q.key] for q in case.evidence.questions])[read.rows]
        parts.append([read.values[kept], question[kept], read.positions[kept], read.tokens[kept]])
    values, rows, positions, tokens = (torch.cat(part) for part in zip(*parts, strict=True))
    return Activations(values, rows, positions, tokens, site)
