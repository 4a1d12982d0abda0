"""Attribution: how much of a metric of a model's logits is due to each SAE latent, at every position, from gradients.

The effect of a latent is what the metric would lose were the latent at its baseline, all else as it is: the activation
x becomes x − (f − f₀)·d, where d is what the latent writes, so bias and error of the SAE stay. `ablation` measures it;
the methods here estimate it for all latents at once.

- *gradient*: (f − f₀) · ∂m/∂f, of one backward pass. With baseline zero this is gradient × activation; with another
  model as baseline, attribution patching (Nanda 2023, "Attribution patching").
- *integrated*: the gradient averaged along the straight way of the latents from their baseline to where they are (Marks
  et al. 2024, arXiv:2403.19647, section 3; Sundararajan et al. 2017). With one block this is their way, on which all
  latents move together, and the effects add up to all that the latents do. But then each effect also holds its part in
  what latents do only together. The effect of ablating one latent asks for the way of that latent alone. So latents are
  dealt into blocks of such as seldom meet, and only those of one block move at a time.
- *patching*: attribution patching with the correction of AtP* (Kramár et al. 2024, arXiv:2403.00745) that applies to
  latents of the residual stream, GradDrop: where what a latent does directly and what it does through a later block
  cancel, the sum is small and badly told, so the gradient is taken once for every later block with the gradient through
  what that block adds cut off, and the sizes are averaged; the sign is that of the plain gradient. The other correction
  of AtP*, of queries and keys, is for nodes that are themselves queries or keys. A latent of the stream feeds all of
  them and the values too, so there is no attention pattern of its own to compute anew; against saturation, *integrated*
  helps. Beyond that AtP* verifies by exact patching what ranks high, which is `ablate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from emlab.discovery.effects import Attribution, Tally
from emlab.discovery.metrics import Contrast
from emlab.discovery.reading import AttributionTarget, Reader, Reading, less
from emlab.errors import EmlabError
from emlab.interventions import Edit, Replace
from emlab.saes import writes
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel
    from emlab.models.language_model import Prompt

Method = Literal["gradient", "integrated", "patching"]

METHODS = ("gradient", "integrated", "patching")


def attribute(
    model: LanguageModel,
    sae: SAE,
    asked: Sequence[Prompt] | Sequence[Contrast],
    site: Site,
    method: Method = "integrated",
    target: AttributionTarget = AttributionTarget(),
    steps: int = 3,
    blocks: int = 16,
    keep: int = 100,
) -> Attribution:
    """The effect of every latent of `sae` on a metric, summed over positions and averaged over what is asked.

    Args:
        model: Who reads.
        sae: Whose latents they are.
        asked: Contrasts, or prompts for a metric of your own.
        site: Where the SAE reads.
        method: gradient, integrated, or patching.
        target: The metric, the baseline, and the tokens that are read.
        steps: Of integrated: points along the way of each block.
        blocks: Of integrated: blocks of latents that are moved one after the other.
        keep: Strongest effects of a latent at a single position that are kept.

    EmlabError for a method, metric, positions or baseline that does not make sense (see `Reader`).
    """
    if method not in METHODS:
        raise EmlabError(f"There is no method {method!r} of attribution; choose {', '.join(METHODS)}.")
    if steps < 1 or blocks < 1:
        raise EmlabError(f"{steps} steps in {blocks} blocks cannot be taken; give at least 1 of each.")
    reader = Reader(model, sae, asked, site, target)
    tally = Tally(reader, method, keep)
    for reading in reader.batches():
        value = reader.metric(reading)  # the gradient's own pass does not return it
        whole = gradient(reader, reading)
        if method == "integrated":
            effects, entries = _integrated(reader, reading, whole, steps, blocks)
        else:
            effects, entries = _of_gradient(reader, reading, whole)
            if method == "patching" and site.block + 1 < model.n_blocks:
                effects, entries = _grad_drop(reader, reading, effects, entries)
        tally.add(value, effects)
        tally.add_places(reading, entries)
    return tally.done()


def gradient(reader: Reader, reading: Reading, edits: Sequence[Edit] = ()) -> Tensor:
    """(n, d_model): the gradient of the metric by the site's activation under `edits`, on the selected tokens."""
    reader.forwards += len(reading.tokens.ids)
    reader.backwards += len(reading.tokens.ids)

    def total(logits: Tensor) -> Tensor:
        return reader.values(logits, reading.tokens, reading.cases).sum()

    found = reader.backend.gradients(reading.tokens, reader.site, total, edits)
    return found[reading.rows, reading.columns].float()


def _of_gradient(reader: Reader, reading: Reading, slope: Tensor, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The effects (cases, d_sae) that the gradient `slope` gives, and those (n,) of the entries of `reading.change`.

    With `among`, bool (d_sae,), only of these latents; all others have 0.
    """
    case = reading.rows.cpu() // reader.cases.per_case
    effects = torch.zeros(len(reading.cases), reader.sae.cfg.d_sae)
    entries = torch.zeros(len(reading.change))
    kept = torch.arange(len(entries)) if among is None else among[reading.change.latents].nonzero()[:, 0]
    for index in kept.split(reader.chunk):
        chunk = reading.change.at(index)
        entries[index] = (reader.written(chunk) * slope[chunk.tokens.to(slope.device)]).sum(-1).cpu()
        effects.index_put_((case[chunk.tokens], chunk.latents), entries[index], accumulate=True)
    if reader.constant is not None:
        # A constant baseline is missing from every token, whether the latent is active there or not.
        of_case = torch.zeros(len(effects), slope.shape[1]).index_add_(0, case, slope.cpu())
        held = reader.constant if among is None else reader.constant * among
        for index in held.nonzero()[:, 0].split(reader.chunk):
            effects[:, index] -= held[index] * (of_case @ writes(reader.sae, index).cpu().T)
    return effects, entries


def _integrated(reader: Reader, reading: Reading, whole: Tensor, steps: int, blocks: int) -> tuple[Tensor, Tensor]:
    """Effects, and those of the entries, by gradients averaged along the way of each block of latents."""
    effects, entries = torch.zeros(len(reading.cases), reader.sae.cfg.d_sae), torch.zeros(len(reading.change))
    for members in _dealt(reader, reading, whole, blocks):
        shift = reader.shift(reading, members)
        # Midpoints of the steps: with one step, half way, which is exact where the metric is quadratic.
        ways = [less(reader.site, shift * (1 - (i + 0.5) / steps)) for i in range(steps)]
        slope = torch.stack([gradient(reader, reading, [edit]) for edit in ways]).mean(0)
        of_block, of_entries = _of_gradient(reader, reading, slope, members)
        effects += of_block
        entries += of_entries
    return effects, entries


def _dealt(reader: Reader, reading: Reading, slope: Tensor, blocks: int) -> list[Tensor]:
    """The latents that move, dealt into blocks so that few of a block meet; (d_sae,) bool each.

    In order of their effects by the gradient `slope` each goes to the block whose latents move least where it does: on
    the same tokens, and on average in the same rows. So two strong ones that meet are seldom on their way at once.
    """
    change, rows = reading.change, reading.rows.cpu()
    size = _of_gradient(reader, reading, slope)[0].abs().sum(0)
    moves = torch.zeros(len(size), dtype=torch.bool)
    moves[change.latents] = True
    if reader.constant is not None:
        moves |= reader.constant != 0
    strongest = torch.argsort(size.masked_fill(~moves, -1.0), descending=True, stable=True)[: int(moves.sum())]
    by_latent = torch.argsort(change.latents, stable=True)
    ends = torch.bincount(change.latents, minlength=len(size)).cumsum(0)

    at_token, in_row = torch.zeros(blocks, len(rows)), torch.zeros(blocks, len(reading.tokens.ids))
    tokens_of_row = torch.bincount(rows, minlength=in_row.shape[1]).clamp_min(1)
    members = torch.zeros(blocks, dtype=torch.long)
    dealt = torch.zeros(blocks, len(size), dtype=torch.bool)
    for latent in strongest.tolist():
        own = change.at(by_latent[int(ends[latent - 1]) if latent else 0 : int(ends[latent])])
        weight, row = own.values.abs(), rows[own.tokens]
        meets = (at_token[:, own.tokens] + in_row[:, row]) @ weight
        block = int(torch.where(meets == meets.min(), members, members.max() + 1).argmin())
        at_token[block].index_add_(0, own.tokens, weight)
        in_row[block].index_add_(0, row, weight / tokens_of_row[row])
        members[block] += 1
        dealt[block, latent] = True
    return [block for block in dealt if bool(block.any())]


def _grad_drop(reader: Reader, reading: Reading, effects: Tensor, entries: Tensor) -> tuple[Tensor, Tensor]:
    """The effects' sizes averaged over gradients that each leave out one later block; their signs as they were."""
    later = range(reader.site.block + 1, reader.model.n_blocks)
    sizes, entry_sizes = torch.zeros_like(effects), torch.zeros_like(entries)
    for block in later:
        dropped = _of_gradient(reader, reading, gradient(reader, reading, _cut(block)))
        sizes += dropped[0].abs() / len(later)
        entry_sizes += dropped[1].abs() / len(later)
    return effects.sign() * sizes, entries.sign() * entry_sizes


def _cut(block: int) -> list[Edit]:
    """Edits that change no activation and let no gradient through what the block adds to the stream."""
    return [Replace(Site(stream, block), torch.Tensor.detach, "all") for stream in ("attn_out", "mlp_out")]
