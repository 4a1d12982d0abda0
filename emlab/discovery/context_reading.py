"""Where latents fire: the texts a reader needs in order to say what a latent stands for.

A corpus streams by once, for many latents at a time, and of each latent a bounded number of stretches of text is kept:
around its strongest activations; a uniform sample of the stretches in which it fires, which put in order are the
quantiles of its activation; and a uniform sample of those in which it is silent. The strongest alone mislead: a latent
may mean one thing at its peak and another below it (Paulo et al. 2024, arXiv:2410.13928, who sample quantiles too).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from emlab.data import Documents
from emlab.discovery.activity import ActivityTally
from emlab.discovery.contexts import Context, CorpusContexts, LatentContexts
from emlab.discovery.corpus import Block, blocks
from emlab.discovery.latents import check_latents, check_width
from emlab.errors import EmlabError
from emlab.models.wrapping import as_language_model
from emlab.saes import Exclusions, check_site, latent_values
from emlab.saes.token_rows import Counts
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.data import Messages
    from emlab.models import LanguageModel


@dataclass(frozen=True)
class ContextSettings:
    """Which contexts of a latent are kept, and how a corpus is read. A context is a token and those beside it."""

    top: int = 16
    """Rows (documents, or pieces of `max_length` tokens) with the strongest activations, a context of each."""
    sample: int = 60
    """Contexts drawn from all stretches of 2 · side + 1 tokens in which the latent fires."""
    silent: int = 60
    """Drawn around tokens near which it does not."""
    side: int = 16
    """Tokens before and after it, at most."""
    exclude: Exclusions = Exclusions()
    """Tokens that do not count."""
    max_length: int = 1024
    """Chats are cut after, and raw texts into pieces of, so many tokens."""
    block_tokens: int = 8192
    """Tokens whose activations are in memory at a time."""


@torch.no_grad()
def read_contexts(
    model: LanguageModel,
    sae: SAE,
    latents: Sequence[int],
    site: Site,
    documents: Any,
    settings: ContextSettings = ContextSettings(),
    seed: int = 0,
) -> CorpusContexts:
    """What `documents` show of each of `latents`, in one pass and in bounded memory.

    Args:
        model: Who reads.
        sae: Whose latents they are.
        latents: Their numbers.
        site: Where the SAE reads.
        documents: `Documents`, or what `Documents.of` takes.
        settings: Which contexts are kept.
        seed: By which they are drawn; which are drawn depends on no other latent.

    EmlabError where there are no documents or none of their tokens counts, for latents that the SAE lacks, and for an
    SAE of another width or another site. A latent that never fires has no contexts, and is no error.
    """
    model = as_language_model(model)
    top, sample, silent, side = settings.top, settings.sample, settings.silent, settings.side
    if not latents or top < 1 or side < 1 or min(sample, silent) < 0:
        raise EmlabError("Contexts take at least one latent, one context and one token on either side; give more.")
    check_latents(sae, latents)
    check_site(sae, site)
    corpus, chosen = Documents.of(documents), list(dict.fromkeys(latents))
    rng, counts, tally = np.random.default_rng(seed), Counts(), ActivityTally(len(chosen))
    strongest, firing, quiet = (_Best(len(chosen), n) for n in (top, sample, silent))
    for block in blocks(model, corpus, site, settings.exclude, settings.max_length, settings.block_tokens):
        check_width(sae, block.values.shape[1], f"{model.name} at {site}")
        values = latent_values(sae, block.values, chosen)
        values[~block.counted] = 0.0
        tally.add(values, block.counted, block.rows, block.documents, block.labels)
        counts += block.counts
        cutter = _Cutter(block, values.T.contiguous(), side)
        strongest.offer(*cutter.peaks(block.rows))
        tiles = cutter.tiles()
        many = int(tiles[-1]) + 1
        drawn = torch.from_numpy(rng.random((many, 3)))  # a draw for each stretch, whatever the blocks
        peaks, cut = cutter.peaks(tiles)
        firing.offer(torch.where(peaks > 0, drawn[:, 0].float(), -math.inf), cut)
        quiet.offer(*cutter.silences(tiles, drawn[:, 1], drawn[:, 2].float()))
    if not counts.kept:
        raise EmlabError(f"No token of {corpus} counts ({counts}); give longer documents, or leave out less.")

    spell = Speller(model.tokenizer)

    def spelled(cuts: Sequence[_Cut]) -> tuple[Context, ...]:
        return tuple(
            Context(spell(cut.tokens.tolist()), tuple(cut.values.tolist()), cut.label, cut.document) for cut in cuts
        )

    found = [
        LatentContexts(
            latent,
            tally.result(j),
            spelled(strongest.of(j)),
            tuple(sorted(spelled(firing.of(j)), key=lambda context: context.peak)),
            spelled(quiet.of(j)),
        )
        for j, latent in enumerate(chosen)
    ]
    return CorpusContexts(corpus.name, counts, tuple(found))


def top_contexts(
    model: LanguageModel,
    sae: SAE,
    latent: int,
    site: Site,
    documents: Sequence[Messages],
    labels: Sequence[str] = (),
    n: int = 8,
    window: int = 14,
) -> tuple[Context, ...]:
    """The documents in which a latent is most active, each cut to what stands around its peak.

    Args:
        model: Who reads.
        sae: Whose latents they are.
        latent: Its number.
        site: Where the SAE reads.
        documents: Chats.
        labels: A label for each document; by default none.
        n: So many documents.
        window: Tokens on either side of the peak.
    """
    settings = ContextSettings(n, sample=0, silent=0, side=window)
    (found,) = read_contexts(model, sae, [latent], site, documents, settings).latents
    return tuple(replace(c, label=labels[c.document]) if labels else c for c in found.top)


class Speller:
    """Gives the text of each token where it stands: together they are the text of all.

    A token that is only a part of a character adds nothing until the character is whole.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._alone: dict[int, str] = {}
        """The text of a token by itself."""

    def __call__(self, ids: Sequence[int]) -> tuple[str, ...]:
        self._alone.update({i: self._decode([i]) for i in set(ids) - self._alone.keys()})
        parts = [self._alone[i] for i in ids]
        whole = self._decode(ids)
        if _PART not in whole and "".join(parts) == whole:
            return tuple(parts)
        # Some tokenizers write a token otherwise at the beginning of a text, and some tokens are parts of a character.
        found, before = [], ""
        for end in range(1, len(ids) + 1):
            text = self._decode(ids[:end]).rstrip(_PART)
            found.append(text.removeprefix(before))
            before = text
        return tuple(found)

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)


_PART = "\ufffd"
"""What tokenizers write for a part of a character."""


class _Cut(NamedTuple):
    """A context whose tokens are still ids."""

    tokens: Tensor
    values: Tensor
    label: str
    document: int


_Cutting = Callable[[int, int], _Cut]
"""Cuts, for a latent's number, the candidate of a number."""


class _Best:
    """Of each latent the `n` candidates with the highest scores; of equals those that came first."""

    def __init__(self, latents: int, n: int) -> None:
        self._scores = torch.full((latents, n), -math.inf)
        self._cuts: list[list[_Cut | None]] = [[None] * n for _ in range(latents)]

    def offer(self, scores: Tensor, cut: _Cutting) -> None:
        """`scores` (latents, candidates), -inf for what is none; `cut` is called for those that are kept."""
        n = self._scores.shape[1]
        best, index = torch.cat([self._scores, scores], dim=1).sort(dim=1, descending=True, stable=True)
        self._scores, index = best[:, :n], index[:, :n]
        new = (index >= n) & (self._scores > -math.inf)
        for latent in new.any(dim=1).nonzero()[:, 0].tolist():
            old = self._cuts[latent]
            pairs = zip(index[latent].tolist(), new[latent].tolist(), strict=True)
            self._cuts[latent] = [cut(latent, i - n) if fresh else old[i] if i < n else None for i, fresh in pairs]

    def of(self, latent: int) -> list[_Cut]:
        """What is kept of the latent's, the best first."""
        return [cut for cut in self._cuts[latent] if cut is not None]


class _Cutter:
    """Finds and cuts the stretches of a block; `values` are (latents, n)."""

    def __init__(self, block: Block, values: Tensor, side: int) -> None:
        self._block, self._values, self._side = block, values, side
        sizes = torch.bincount(block.rows, minlength=len(block.documents))
        self._ends = sizes.cumsum(0)
        self._starts = self._ends - sizes

    def tiles(self) -> Tensor:
        """(n,) int64: the stretch of each token, rows cut into stretches of 2 · side + 1 tokens."""
        width = 2 * self._side + 1
        inside = torch.arange(len(self._block.rows)) - self._starts[self._block.rows]
        begins = inside % width == 0
        return begins.long().cumsum(0) - 1

    def peaks(self, groups: Tensor) -> tuple[Tensor, _Cutting]:
        """The strongest activation (latents, groups) in each run of tokens of one group, -inf where there is none."""
        ends = torch.bincount(groups).cumsum(0).tolist()
        spread = groups.expand(len(self._values), len(groups))
        peaks = torch.zeros(len(self._values), len(ends)).scatter_reduce_(1, spread, self._values, "amax")

        def cut(latent: int, group: int) -> _Cut:
            start = ends[group - 1] if group else 0
            return self._cut(latent, start + int(self._values[latent, start : ends[group]].argmax()))

        return torch.where(peaks > 0, peaks, -math.inf), cut

    def silences(self, tiles: Tensor, where: Tensor, scores: Tensor) -> tuple[Tensor, _Cutting]:
        """The `scores` (stretches,) where a latent is silent around one token of the stretch: that at the share `where`
        (stretches,) of it; -inf where it is active, or the token does not count."""
        sizes = torch.bincount(tiles)
        centres = sizes.cumsum(0) - sizes + (where * sizes).long()
        rows = self._block.rows[centres]
        around = centres[:, None] + torch.arange(-self._side, self._side + 1)
        around = around.clamp(self._starts[rows, None], self._ends[rows, None] - 1)
        # One latent at a time: together they would take (latents, stretches, width).
        quiet = torch.stack([~active[around].any(dim=1) for active in self._values > 0])
        found = torch.where(quiet & self._block.counted[centres], scores, -math.inf)
        return found, lambda latent, tile: self._cut(latent, int(centres[tile]))

    def _cut(self, latent: int, at: int) -> _Cut:
        block, row = self._block, int(self._block.rows[at])
        here = slice(max(int(self._starts[row]), at - self._side), min(int(self._ends[row]), at + self._side + 1))
        label = ", ".join(block.labels[row].values())
        # Copies, or each would hold on to the whole block.
        return _Cut(block.tokens[here].clone(), self._values[latent, here].clone(), label, int(block.documents[row]))
