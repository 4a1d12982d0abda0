"""Latents set to a value, of any dictionary: an encoder as a plain function, and what each latent writes.

Only the latents' own part of the stream changes. The dictionary's reconstruction error stays (Cunningham et al. 2023,
arXiv:2309.08600, let it go, which by itself costs a model much of its loss; Marks et al. 2024, arXiv:2403.19647, keep
it), and so does whatever edits before have put there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.interventions.edits import Clamp
from emlab.interventions.positions import Positions
from emlab.sites import Site


def ablate_encoded(
    site: Site,
    encode: Callable[[Tensor], Tensor],
    writes: Tensor,
    mean: Tensor | None = None,
    of_row: Tensor | None = None,
    positions: Positions = "sentence",
) -> Clamp:
    """The edit that takes latents away.

    Args:
        site: Where they are read and written.
        encode: Gives the activations (…, n) of n latents; see `clamp_encoded`.
        writes: (n, d_model) what one unit of each adds to the stream.
        mean: (n,) the activations to set them to; None sets them to zero.
        of_row: int64 (batch,) the one latent that is each row's own; None sets all in every row.
        positions: The tokens to edit.
    """
    values = torch.zeros(len(writes)) if mean is None else mean
    if of_row is not None and values.shape == (len(writes),):
        values = values[_checked(of_row, len(writes), site).to(values.device)]
    return clamp_encoded(site, encode, writes, values, None, of_row, positions)


def clamp_encoded(
    site: Site,
    encode: Callable[[Tensor], Tensor],
    writes: Tensor,
    to: float | Tensor,
    maximum: Tensor | None = None,
    of_row: Tensor | None = None,
    positions: Positions = "sentence",
) -> Clamp:
    """The edit that sets latents to a value.

    Of an SAE `encode` and `writes` are ``lambda h: emlab.saes.encode(sae, h, latents)`` and ``emlab.saes.writes(sae,
    latents)``; its decoder rows as they stand may be in other units than its activations. All rows are encoded at once.
    EmlabError where shapes do not agree or a number is not finite.

    Args:
        site: Where they are read and written.
        encode: Gives the activations (…, n) of n latents.
        writes: (n, d_model) what one unit of each adds to the stream.
        to: The activation to set them to: one number, or (n,); with `of_row` one number, or (batch,).
        maximum: (n,) their largest activations, of which `to` is then a multiple; None takes `to` as it stands.
        of_row: int64 (batch,) the one latent that each row sets, leaving the others; None sets all in every row.
        positions: The tokens to edit.
    """
    n = len(writes)
    if of_row is None:
        values = torch.as_tensor(to, dtype=torch.float32).expand(n) if _is_number(to) else torch.as_tensor(to).float()
        return Clamp(site, encode, writes, values if maximum is None else values * _fits(maximum, n, site), positions)
    chosen = _checked(of_row, n, site)
    each = torch.as_tensor(to, dtype=torch.float32, device=chosen.device)
    if each.ndim and each.shape != chosen.shape:
        raise EmlabError(
            f"Clamping at {site} got {tuple(each.shape)} values for the latents of {len(chosen)} rows; give one, or "
            "one for every row."
        )
    if maximum is not None:
        each = each * _fits(maximum, n, site).to(chosen.device)[chosen]
    only = torch.nn.functional.one_hot(chosen, n).bool()
    return Clamp(site, encode, writes, each.expand(len(chosen))[:, None] * only, positions, only)


def _is_number(to: float | Tensor) -> bool:
    return not isinstance(to, Tensor) or to.ndim == 0


def _fits(maximum: Tensor, n: int, site: Site) -> Tensor:
    if maximum.shape != (n,):
        raise EmlabError(f"Clamping {n} latents at {site} got maxima {tuple(maximum.shape)}; give one for each latent.")
    return maximum.float()


def _checked(of_row: Tensor, n: int, site: Site) -> Tensor:
    if of_row.ndim != 1 or of_row.dtype.is_floating_point or not bool(((of_row >= 0) & (of_row < n)).all()):
        raise EmlabError(
            f"Clamping {n} latents at {site} got rows of shape {tuple(of_row.shape)} and type {of_row.dtype}; give the "
            f"number of one latent, 0 to {n - 1}, for every row."
        )
    return of_row.long()
