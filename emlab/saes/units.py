"""An SAE's latents in one unit: the length of what each adds to the activation that the SAE reads.

An SAE's own units are arbitrary: a latent whose decoder row is twice as long, and whose encoder, bias and threshold are
half as large, is the same latent with activations half as large. So latents are read by `encode`, which gives the
activation times the length of the row, and each then `writes` a unit vector. `fold` puts that unit into the weights;
`load_sae` does it with every SAE, and whatever else reads an SAE gets the same from here for one that was never loaded.

A crosscoder's rows span two models' activations, each scaled to its own norm in training: their length is taken there.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emlab.errors import EmlabError

if TYPE_CHECKING:
    from sae_lens import SAE

NORMALISED = ("constant_norm_rescale", "layer_norm", "constant_scalar_rescale")
"""What SAELens calls scaling every token as it is read: an activation is then in units of its token."""

UNFOLDED = ("expected_average_only_in", "covariance_whitening")
"""What SAELens calls scaling the activations before the SAE is trained; its weights fit raw ones once it is folded."""

_BY_LATENT = ("b_enc", "b_gate", "b_mag", "threshold")
"""What is in units of the activation, besides the encoder; r_mag of a gated SAE is a ratio."""

_FOLDABLE = ("standard", "gated", "jumprelu", "topk", "abstopk")
_FOLDABLE_TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")


def encode(sae: SAE, x: Tensor, latents: Sequence[int] | Tensor | None = None) -> Tensor:
    """(…, d_sae) float32 on the SAE's device, or (…, n) of some `latents`: each activation times its row's length.

    `x` is (…, d_in); where it has a gradient, so has what is returned. EmlabError for an SAE whose training scaled the
    activations and whose weights were never put right for raw ones.
    """
    dense, lengths = own_activations(sae, x, latents), lengths_left(sae, latents)
    return dense if lengths is None else dense * lengths


def own_activations(sae: SAE, x: Tensor, latents: Sequence[int] | Tensor | None = None) -> Tensor:
    """What `encode` gives, in the SAE's own units still."""
    _check_folded(sae)
    encoded = sae.encode(x.to(sae.W_dec))
    # An SAE made with use_sparse_activations returns a sparse tensor.
    dense = (encoded.to_dense() if encoded.is_sparse else encoded).float()
    return dense if latents is None else dense[..., torch.as_tensor(latents, device=dense.device)]


def lengths_left(sae: SAE, latents: Sequence[int] | Tensor | None = None) -> Tensor | None:
    """(n,): what the SAE's own activations are still to be multiplied by; None where they are in the unit already."""
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):  # SAELens has multiplied by the lengths
        return None
    lengths = row_lengths(sae, latents)
    return None if bool((lengths == 1).all()) else lengths


def writes(sae: SAE, latents: Sequence[int] | Tensor) -> Tensor:
    """(n, d_in) float32: what one unit of each latent's activation, as `encode` has it, adds to the reconstruction.

    EmlabError for an SAE that scales every token by its own norm, so that there is no such vector.
    """
    scaled = getattr(sae.cfg, "normalize_activations", "none")
    if scaled in NORMALISED:
        raise EmlabError(
            f"the SAE normalises activations by {scaled}, so what a latent writes differs from token to token: use one "
            "whose scale is folded into its weights."
        )
    _check_folded(sae)
    return decoder_rows(sae, latents)


@torch.no_grad()
def decoder_rows(sae: SAE, latents: Sequence[int] | Tensor | slice | None = None) -> Tensor:
    """(n, d_in) float32: the decoder rows of some latents (None: of all), made unit; those of zeros stay zeros."""
    index = slice(None) if latents is None else latents
    rows = sae.W_dec.detach()[_index(sae, index)].float()
    lengths = row_lengths(sae, index)[:, None]
    return torch.where(lengths > 0, rows / lengths.masked_fill(lengths == 0, 1.0), 0.0)


@torch.no_grad()
def without_direction(sae: SAE, direction: Tensor) -> SAE:
    """A copy of the SAE that neither reads nor writes the direction (d_in,)."""
    found = copy.deepcopy(sae)
    unit = torch.nn.functional.normalize(direction, dim=0).to(found.W_dec)
    found.W_dec -= torch.outer(found.W_dec @ unit, unit)
    found.W_enc -= torch.outer(unit, unit @ found.W_enc)
    found.b_dec -= (found.b_dec @ unit) * unit
    return found


@torch.no_grad()
def row_lengths(sae: SAE, latents: Sequence[int] | Tensor | slice | None = None) -> Tensor:
    """(n,) float32: the lengths of decoder rows; exactly 1 for those that are unit but for the rounding of their type.

    Taken anew whenever they are asked for, since the weights of an SAE in memory may change.
    """
    rows = sae.W_dec.detach()[_index(sae, slice(None) if latents is None else latents)]
    columns = _columns(sae)
    rows = rows if columns is None else rows * columns.to(rows)
    lengths = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float32)
    rounding = max(1e-5, torch.finfo(rows.dtype).eps)
    return torch.where((lengths - 1).abs() <= rounding, 1.0, lengths)


def device_of(sae: SAE) -> torch.device:
    """Where `encode` computes."""
    return sae.W_dec.device


@torch.no_grad()
def fold(sae: SAE) -> SAE:
    """The same function with unit decoder rows; SAEs whose rows are unit already are returned as they are, bit for bit.

    The weights are changed in place, so go on with what is returned. EmlabError for an architecture whose rows cannot
    be made unit without changing what it computes.
    """
    lengths = row_lengths(sae)
    if bool((lengths == 1).all()):
        return sae
    architecture = sae.cfg.architecture()
    if architecture not in (*_FOLDABLE, *_FOLDABLE_TRANSCODERS):
        raise EmlabError(
            f"the SAE is a {architecture} whose decoder rows are not unit vectors, and making them so would change "
            "what it computes: use one with unit rows."
        )
    rescaled = getattr(sae.cfg, "rescale_acts_by_decoder_norm", None)
    sae.W_dec.copy_((sae.W_dec.float() / lengths.masked_fill(lengths == 0, 1.0)[:, None]).to(sae.W_dec))
    if rescaled is False:  # it chooses its k latents by the activations in the old units
        from emlab.saes.scaled_topk import ScaledTopKSAE

        return ScaledTopKSAE.of(sae, lengths)
    for name, value in sae.named_parameters():
        if name == "W_enc" or name in _BY_LATENT:  # W_enc is (d_in, d_sae), the others (d_sae,)
            value.copy_((value.float() * lengths).to(value))
    if rescaled:
        sae.cfg.rescale_acts_by_decoder_norm = False  # type: ignore[attr-defined]  # the lengths are 1 now
    return sae


def _check_folded(sae: SAE) -> None:
    scaled = getattr(sae.cfg, "normalize_activations", "none")
    if scaled in UNFOLDED:
        raise EmlabError(
            f"the SAE was trained on scaled activations (normalize_activations is {scaled}) and its weights do not fit "
            "raw ones: fold the scale into them, in SAELens by sae.fold_activation_norm_scaling_factor, and save it."
        )


def _index(sae: SAE, latents: Sequence[int] | Tensor | slice) -> Any:
    return latents if isinstance(latents, slice) else torch.as_tensor(latents, device=sae.W_dec.device)


def _columns(sae: SAE) -> Tensor | None:
    """(d_in,): of a crosscoder, what its training multiplied each dimension by."""
    about: Any = getattr(sae.cfg, "metadata", None)
    if getattr(about, "emlab_kind", None) != "crosscoder" or not getattr(about, "emlab_scales", None):
        return None
    pairs = zip(about.emlab_widths, about.emlab_scales, strict=True)
    return torch.cat([torch.full((int(width),), float(scale)) for width, scale in pairs])
