"""How an SAE describes a model, class by class of tokens: what `emlab sae check` measures.

A latent of an SAE that does not reconstruct a model says nothing of it, and a fine-tune can move activations off what
the SAE of its base has learnt to write, at the very tokens where its latents are to be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.data.prompts import prompts_of
from emlab.errors import EmlabError
from emlab.interventions import Edit, Replace, Tokens
from emlab.models import edit
from emlab.models.backends.hooks import caught
from emlab.models.wrapping import as_language_model
from emlab.saes.activations import SINK
from emlab.saes.encoding import chunks
from emlab.saes.fitting import fitted_site
from emlab.saes.moments import SCALARS, Estimate, Moments, document_weights
from emlab.saes.token_classes import CLASSES, special_ids, token_classes
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel, Prompt

DENSE = 0.1
"""A latent that is active on more than this share of tokens is dense: "very high frequency" in Rajamanoharan et al.
2024 (JumpReLU SAEs, arXiv:2407.14435), who find such latents hard to interpret."""


@dataclass(frozen=True)
class ClassFidelity:
    """How an SAE describes one model on one class of tokens. Intervals are 95%, over documents."""

    tokens: int
    documents: int
    explained_variance: Estimate
    """1 − FVU, about the mean: 1 − Σ‖x − x̂‖² / Σ‖x − mean(x)‖², all dimensions in one sum (as SAELens reports it)."""
    explained_by_dimension: Estimate
    """The mean over dimensions of the same ratio: a few loud dimensions cannot hide the rest."""
    l0: Estimate
    """Mean number of latents active on a token."""
    dead: int
    """Latents active on none of the tokens."""
    dense: int
    """Latents active on more than DENSE of them."""
    d_sae: int
    loss: Estimate
    """Cross entropy, in nats, of the next token predicted at these tokens, the model untouched."""
    loss_recovered: Estimate
    """Share of the loss at stake that is kept when every token but the first ones passes through the SAE:
    (mean − SAE) / (mean − untouched), `mean` putting the mean activation there. 1 is perfect."""
    loss_recovered_zero: Estimate
    """The same against zeros in place of the mean, as most papers report it: an easier bar."""
    norm_ratio: Estimate
    """Mean of ‖x̂‖ / ‖x‖: below 1 the SAE shrinks."""
    reconstruction_bias: Estimate
    """γ = Σ‖x̂‖² / Σ x̂·x (Rajamanoharan et al. 2024, Gated SAEs, arXiv:2404.16014): 1 is unbiased, less is shrinkage."""
    cosine: Estimate
    """Mean cosine of x̂ and x."""


@dataclass(frozen=True)
class ModelCheck:
    """How an SAE describes one model."""

    model: str
    classes: dict[str, ClassFidelity]
    """By class of tokens, in the order of CLASSES; a class without two tokens is missing."""
    sinks: int
    """Attention sinks, counted with the first tokens."""
    dropped: int
    """Documents longer than the model takes."""


@torch.no_grad()
def check_model(
    sae: SAE,
    model: LanguageModel,
    documents: Sequence[Prompt],
    resamples: int = 200,
    batch_size: int = 32,
    seed: int = 0,
    site: Site | None = None,
) -> ModelCheck:
    """Measure `sae` on `model` reading `documents`, in one pass over them.

    The first batch tells the mean that mean ablation puts in, and from which norm on (10 times the median) a token is
    an attention sink. Memory does not grow with the number of documents. EmlabError where the SAE does not fit the
    model, where there is nothing to read, and where activations or reconstructions are not finite.

    Args:
        sae: The SAE.
        model: The model whose activations it is to describe.
        documents: Chats, or other prompts.
        resamples: Of the bootstrap over documents that the intervals are from.
        batch_size: Documents in one pass.
        seed: Of the bootstrap.
        site: Where the SAE reads, for one that names no site itself.
    """
    model, documents = as_language_model(model), prompts_of(documents)
    site, sinks = fitted_site(sae, model) if site is None else site, 0
    moments: dict[str, Moments] = {}
    special = special_ids(model.tokenizer)
    generator = torch.Generator().manual_seed(seed)
    dropped = 0
    for at in range(0, len(documents), batch_size):
        rows, starts = model.rows(documents[at : at + batch_size])
        keep = [i for i, row in enumerate(rows) if len(row) <= (model.max_positions or len(row))]
        dropped += len(rows) - len(keep)
        if not keep:
            continue
        tokens = model.batch([rows[i] for i in keep], [starts[i] for i in keep])
        x, untouched = _read(model, site, tokens)
        norms = x.norm(dim=-1)
        if not moments:
            counted = tokens.real & (tokens.position_ids > 0)
            if not bool(counted.any()):
                continue
            limit = SINK * norms[counted].median()
            mean = x[counted & (norms <= limit)].mean(0)
            moments = {name: Moments(mean.cpu().double(), sae.cfg.d_sae, resamples) for name in CLASSES}
        masks = token_classes(tokens, special, norms > limit)
        sinks += int((masks["first"] & (tokens.position_ids > 0)).sum())
        rebuilt, active, fired = _rebuild(sae, x, masks)
        for name, count in fired.items():
            moments[name].fired += count
        spliced = [rebuilt, mean.to(x).expand_as(x), torch.zeros_like(x)]
        losses = [untouched, *(_spliced_loss(model, site, tokens, masks["all"], h) for h in spliced)]
        scalars = _scalars(x, rebuilt, active, tokens, losses)
        weights = document_weights(len(keep), resamples, generator)
        of = torch.arange(len(keep), device=x.device)[:, None].expand(tokens.real.shape)
        for name, mask in masks.items():
            if bool(mask.any()):
                moments[name].add(x[mask], rebuilt[mask], scalars[mask], of[mask], weights)
    found = {name: _figures(m, sae.cfg.d_sae) for name, m in moments.items() if m.tokens > 1}
    if "all" not in found:
        raise EmlabError(
            f"The documents gave no tokens of {model.name} to check an SAE on; give documents of two or more."
        )
    return ModelCheck(model.name, found, sinks, dropped)


def _read(model: LanguageModel, site: Site, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """The site's activations (batch, position, d_model) float32, zero at pads, and the losses at each token."""
    with caught(model.model, site, stop=False) as seen:
        losses = _losses(model, tokens)
    x = seen[0].float()
    if not bool(torch.isfinite(x[tokens.real]).all()):
        raise EmlabError(
            f"the activations of {model.name} at {site} are not finite: load the model in bfloat16 or float32."
        )
    return x.masked_fill(~tokens.real[..., None], 0.0), losses


def _losses(model: LanguageModel, tokens: Tokens) -> Tensor:
    """(batch, position) float32: the loss of the token after each, NaN where there is none."""
    mask = tokens.real.long()
    out = model.model(input_ids=tokens.ids, attention_mask=mask, position_ids=tokens.position_ids, use_cache=False)
    losses = torch.full(tokens.ids.shape, torch.nan, device=tokens.ids.device)
    for i, (logits, ids, real) in enumerate(zip(out.logits, tokens.ids, tokens.real, strict=True)):
        first = int((~real).sum())  # left padding
        losses[i, first:-1] = torch.nn.functional.cross_entropy(
            logits[first:-1].float(), ids[first + 1 :], reduction="none"
        )
    return losses


def _spliced_loss(model: LanguageModel, site: Site, tokens: Tokens, mask: Tensor, put: Tensor) -> Tensor:
    """The losses with `put` (batch, position, d_model) in the place of the site's activations where `mask` says."""
    splice: Edit = Replace(site, lambda h: put.to(h), positions=mask)
    with edit(model, splice):
        return _losses(model, tokens)


def _rebuild(sae: SAE, x: Tensor, masks: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Reconstructions (batch, position, d_model), active latents a token, and of each class how often latents fired."""
    flat = x.flatten(0, 1)
    fired = {name: torch.zeros(sae.cfg.d_sae, dtype=torch.long) for name in masks}
    rebuilt, active = torch.zeros_like(flat), torch.zeros(len(flat), device=x.device)
    for part in chunks(sae, len(flat)):
        latents = sae.encode(flat[part].to(sae.W_dec))
        rebuilt[part] = sae.decode(latents).float()
        on = latents != 0
        active[part] = on.sum(-1).float()
        for name, mask in masks.items():
            fired[name] += on[mask.flatten()[part]].sum(0).cpu()
    rebuilt = rebuilt.view_as(x)
    if not bool(torch.isfinite(rebuilt[masks["all"]]).all()):
        raise EmlabError("the SAE's reconstruction is not finite: load the SAE in float32.")
    return rebuilt, active.view(x.shape[:2]), fired


def _scalars(x: Tensor, rebuilt: Tensor, active: Tensor, tokens: Tokens, losses: Sequence[Tensor]) -> Tensor:
    """(batch, position, len(SCALARS)): each token's terms."""
    dot, square = (rebuilt * x).sum(-1), rebuilt.square().sum(-1)
    norm = x.norm(dim=-1).clamp_min(1e-12)
    predicts = losses[0].isfinite()
    terms = {
        "tokens": tokens.real.float(),
        "active": active,
        "rebuilt_square": square,
        "rebuilt_dot": dot,
        "norm_ratio": square.sqrt() / norm,
        "cosine": dot / (square.sqrt() * norm).clamp_min(1e-12),
        "predicted": predicts.float(),
    }
    for name, loss in zip(("loss", "loss_rebuilt", "loss_mean", "loss_zero"), losses, strict=True):
        terms[name] = torch.where(predicts, loss, 0.0)
    return torch.stack([terms[name] for name in SCALARS], dim=-1)


def _figures(m: Moments, d_sae: int) -> ClassFidelity:
    return ClassFidelity(
        tokens=m.tokens,
        documents=m.documents,
        explained_variance=m.explained_variance(),
        explained_by_dimension=m.explained_by_dimension(),
        l0=m.mean("active"),
        dead=int((m.fired == 0).sum()),
        dense=int((m.fired > DENSE * m.tokens).sum()),
        d_sae=d_sae,
        loss=m.mean("loss", over="predicted"),
        loss_recovered=m.loss_recovered("loss_mean"),
        loss_recovered_zero=m.loss_recovered("loss_zero"),
        norm_ratio=m.mean("norm_ratio"),
        reconstruction_bias=m.reconstruction_bias(),
        cosine=m.mean("cosine"),
    )
