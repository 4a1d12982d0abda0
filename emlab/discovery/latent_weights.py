"""What a latent's weights say, without any text: the tokens its decoder row promotes, and the rows most like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.discovery.directions import decoder_direction
from emlab.errors import EmlabError
from emlab.models import direct_logits
from emlab.saes import decoder_rows
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel

_ROWS = 16_384
"""Decoder rows that are brought to float32 at a time."""


@dataclass(frozen=True)
class TokenEffect:
    """How one token's logit is moved."""

    token: str
    effect: float
    """By a unit vector along the decoder row, less the mean over the vocabulary; see `direct_logits`."""


@dataclass(frozen=True)
class Neighbour:
    """Another latent, by its decoder row."""

    latent: int
    cosine: float


@dataclass(frozen=True)
class LatentWeights:
    """What a latent's weights say."""

    promoted: tuple[TokenEffect, ...]
    """The tokens whose logits it raises most directly; none where it is not written into the residual stream."""
    suppressed: tuple[TokenEffect, ...]
    nearest: tuple[Neighbour, ...]
    """The latents whose decoder rows have the highest cosines with its own."""
    opposed: tuple[Neighbour, ...]
    """Those with the lowest, the lowest first."""


@torch.no_grad()
def latent_weights(
    model: LanguageModel, sae: SAE, latents: Sequence[int], site: Site, n: int = 10
) -> tuple[LatentWeights, ...]:
    """For each latent the tokens it promotes and suppresses, and its neighbours.

    Promoted and suppressed are by the direct effect on the logits, past all later blocks (`direct_logits`). At a site
    that is no sum into the residual stream (z) there is none.

    Args:
        model: Whose unembedding is taken.
        sae: Whose latents they are.
        latents: Their numbers.
        site: Where they write.
        n: Tokens and neighbours, so many of each.

    EmlabError for latents that the SAE lacks.
    """
    if n < 1:
        raise EmlabError(f"{n} tokens of a latent show nothing; ask for at least 1.")
    rows = torch.stack([decoder_direction(sae, latent, site).vector for latent in latents])
    near = _neighbours(sae, latents, n)
    found = []
    for i, (nearest, opposed) in enumerate(near):
        promoted: tuple[TokenEffect, ...] = ()
        suppressed: tuple[TokenEffect, ...] = ()
        if site.stream != "z":
            effects = direct_logits(model, rows[i : i + 1])[0]
            promoted, suppressed = _strongest(model, effects, n), _strongest(model, effects, n, least=True)
        found.append(LatentWeights(promoted, suppressed, nearest, opposed))
    return tuple(found)


def _strongest(model: LanguageModel, effects: Tensor, n: int, least: bool = False) -> tuple[TokenEffect, ...]:
    values, ids = effects.topk(min(n, len(effects)), largest=not least)
    texts = model.tokenizer.batch_decode([[i] for i in ids.tolist()])
    return tuple(TokenEffect(text, value) for text, value in zip(texts, values.tolist(), strict=True))


def _neighbours(sae: SAE, latents: Sequence[int], n: int) -> list[tuple[tuple[Neighbour, ...], tuple[Neighbour, ...]]]:
    own = decoder_rows(sae, latents)
    # A chunk of the decoder at a time: its copy in float32 may be larger than the SAE.
    parts = [slice(at, at + _ROWS) for at in range(0, sae.cfg.d_sae, _ROWS)]
    cosines = torch.cat([(own @ decoder_rows(sae, part).T).cpu() for part in parts], dim=1).clamp(-1, 1)
    found = []
    for latent, row in zip(latents, cosines, strict=True):
        others = torch.arange(len(row)) != latent
        index = torch.arange(len(row))[others]
        sides = []
        for largest in (True, False):
            values, at = row[others].topk(min(n, len(index)), largest=largest)
            pairs = zip(index[at].tolist(), values.tolist(), strict=True)
            sides.append(tuple(Neighbour(other, cosine) for other, cosine in pairs))
        found.append((sides[0], sides[1]))
    return found
