"""Latent shift: how much more each SAE latent fires after a fine-tune than before, on the same prompts.

Both models read the same prompts, and neither has written an answer yet, so what differs is what the fine-tune did to
the reading. The difference is taken prompt by prompt (paired), and its standard error is over prompts, or over clusters
of prompts. Any two models will do that share their tokens: checkpoints of one run, for example.
Source: Wang et al. 2025, "Persona features control emergent misalignment" (arXiv:2506.19823).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from emlab import artifacts, records
from emlab.data.prompts import answers_of, prompts_of
from emlab.discovery.latents import BUDGET, check_width
from emlab.discovery.selection import check_same_tokens, described, part, select
from emlab.discovery.table_cells import or_dash
from emlab.discovery.vectors import LISTED, read_vectors, write_vectors
from emlab.errors import EmlabError
from emlab.interventions import Positions
from emlab.models.wrapping import as_language_model
from emlab.notebook import Shown
from emlab.saes import check_site, dense_chunks
from emlab.saes.units import device_of
from emlab.sealing import refuse
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel
    from emlab.models.language_model import Prompt


VECTORS = ("before", "after", "standard_error")
"""The vectors of a `LatentShift`."""


@dataclass(frozen=True)
class ShiftedLatent:
    """One latent's row in a `LatentShift`."""

    latent: int
    rank: int
    """1 for the latent that rises most."""
    before: float
    """Mean activation in the first model, in units of what the SAE reads: times the length of the decoder row."""
    after: float
    shift: float
    standard_error: float
    """Of `shift`, over prompts."""


@dataclass(frozen=True, eq=False, repr=False)
class LatentShift(Shown):
    """Mean activation of every latent before and after, on the same prompts at the same positions."""

    model_before: str
    model_after: str
    site: Site
    positions: str
    """In a word: a kind of positions, or what the mask or set of tokens was."""
    prompts: int
    before: Tensor
    """(d_sae,) float32."""
    after: Tensor
    """(d_sae,) float32."""
    standard_error: Tensor
    """(d_sae,) of after − before, over prompts or their clusters; NaN where there is one."""

    @property
    def shift(self) -> Tensor:
        """(d_sae,) after − before."""
        return self.after - self.before

    @property
    def order(self) -> Tensor:
        """(d_sae,) int64: the latents from the largest rise to the largest fall; ties by index."""
        return torch.argsort(self.shift, descending=True, stable=True)

    def rank(self, latent: int) -> int:
        """1 for the latent that rises most."""
        shift = self.shift
        return 1 + int((shift > shift[latent]).sum()) + int((shift[:latent] == shift[latent]).sum())

    def row(self, latent: int) -> ShiftedLatent:
        """Everything about one latent. EmlabError where there is no such latent."""
        if not 0 <= latent < len(self.before):
            raise EmlabError(f"the shift is of latents 0 to {len(self.before) - 1} and has no latent {latent}.")
        return self._row(latent, self.rank(latent))

    def top(self, n: int = 10) -> list[ShiftedLatent]:
        """The `n` latents that rise most."""
        return [self._row(latent, rank) for rank, latent in enumerate(self.order[:n].tolist(), 1)]

    def bottom(self, n: int = 10) -> list[ShiftedLatent]:
        """The `n` latents that fall most, the one that falls least of them first."""
        order, first = self.order, max(0, len(self.before) - n)
        return [self._row(latent, rank) for rank, latent in enumerate(order[first:].tolist(), first + 1)]

    def rows(self) -> list[dict[str, Any]]:
        """Every latent, the one that rises most first, as plain values."""
        return [vars(row) for row in self.top(len(self.before))]

    def __getitem__(self, latent: int) -> ShiftedLatent:
        return self.row(latent)

    def _row(self, latent: int, rank: int) -> ShiftedLatent:
        before, after, error = (float(t[latent]) for t in (self.before, self.after, self.standard_error))
        return ShiftedLatent(latent, rank, before, after, float(self.after[latent] - self.before[latent]), error)

    def save(self, path: str | Path) -> Path:
        """Write every latent as JSON, and beside it (ending .csv) a table in order of rank.

        Of more than 65,536 latents the vectors go into a safetensors file beside them, and the table has the 1,000 that
        rise most and the 1,000 that fall most.
        """
        path, large = artifacts.place(path), len(self.before) > LISTED
        rows = [*self.top(1000), *self.bottom(1000)] if large else self.top(len(self.before))
        lines = ["rank,latent,before,after,shift,standard_error"]
        lines += [
            f"{r.rank},{r.latent},{r.before:.6g},{r.after:.6g},{r.shift:.6g},{r.standard_error:.6g}" for r in rows
        ]
        artifacts.write_text(path.with_suffix(".csv"), "\n".join(lines) + "\n")
        about = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in VECTORS}
        return write_vectors(path, {**about, "site": str(self.site)}, {name: getattr(self, name) for name in VECTORS})

    @classmethod
    def load(cls, path: str | Path) -> LatentShift:
        """Read what `save` wrote."""
        raw, vectors = read_vectors(path, VECTORS, "latent shift")
        return cast(LatentShift, records.restored({**raw, **vectors}, cls, str(path)))

    def __str__(self) -> str:
        rows = [
            f"latent shift at {self.site}, {self.positions}: {self.model_after} − {self.model_before}, "
            f"{self.prompts} prompt{'s' if self.prompts > 1 else ''}",
            "rank  latent   before    after    shift       se",
        ]
        return "\n".join(
            rows
            + [
                f"{r.rank:4d}  {r.latent:6d}  {r.before:7.3f}  {r.after:7.3f}  {r.shift:+7.3f}  "
                + or_dash(r.standard_error, "7.3f")
                for r in self.top(10)
            ]
        )


def prompt_means(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    site: Site,
    positions: Positions,
    sae: SAE | None = None,
    answers: Sequence[str] | None = None,
) -> Tensor:
    """(prompts, width): per prompt the mean over its `positions` of the residual stream, or of `sae`'s latents.

    Latents are encoded token by token and averaged afterwards. With `answers` each prompt is read with its answer
    behind it. EmlabError where a prompt has no such position. For an SAE of very many latents use `latent_shifts`.
    """
    model, prompts = as_language_model(model), prompts_of(prompts)
    if sae is not None:
        check_site(sae, site)
    read = model.activations(prompts, site, positions, answers)
    tokens = _counts(read.rows, len(prompts), positions)
    if sae is None:
        total = torch.zeros(len(prompts), read.values.shape[1]).index_add_(0, read.rows, read.values)
    else:
        check_width(sae, read.values.shape[1], f"{model.name} at {site}")
        total = _sums(sae, read.values, torch.ones(len(read)), read.rows, len(prompts), BUDGET).cpu()
    return total / tokens[:, None]


def latent_shift(
    model_a: LanguageModel,
    model_b: LanguageModel,
    sae: SAE,
    prompts: Sequence[Prompt],
    site: Site | str,
    positions: Positions = "header",
    answers: Sequence[str] | None = None,
    clusters: Sequence[Hashable] | None = None,
) -> LatentShift:
    """The shift of every latent of `sae` from `model_a` to `model_b` on `prompts`; see `latent_shifts`.

    Args:
        model_a: The model before.
        model_b: The model after.
        sae: Whose latents they are.
        prompts: What both read.
        site: Where the SAE was trained.
        positions: Which tokens; by default those before the answer begins.
        answers: One for each prompt, read after it.
        clusters: Of each prompt; those of one cluster are not independent.
    """
    return latent_shifts(model_a, [model_b], sae, prompts, site, positions, answers, clusters)[0]


@torch.no_grad()
def latent_shifts(
    first: LanguageModel,
    others: Sequence[LanguageModel],
    sae: SAE,
    prompts: Sequence[Prompt],
    site: Site | str,
    positions: Positions = "header",
    answers: Sequence[str] | None = None,
    clusters: Sequence[Hashable] | None = None,
    budget: int = BUDGET,
    block: int = 256,
) -> list[LatentShift]:
    """The shifts of every latent of `sae` from `first` to each of `others`, in one pass over the prompts.

    `positions` are a name of SELECTIONS, a `TokenSet` or a mask; with `answers` each prompt is read with its answer.
    A prompt's latents are averaged over its positions, and every prompt counts the same. Prompts of one cluster (a
    question in several wordings, say; by default each prompt is its own) are not taken for independent: the standard
    error is the cluster-robust one, √(G/(G−1) · Σ_g (Σ_{i∈g} (dᵢ − d̄))²) / n, which without clusters is the usual one.

    `block` prompts are read at a time, and `budget` bytes bound the dense latents of a chunk, so that memory grows
    with neither the prompts nor the latents beyond a few vectors of length d_sae. EmlabError for no prompts, for a
    prompt without a token at the positions, for models that do not share their tokens, and for an SAE that was trained
    at another site.

    Args:
        first: The model before.
        others: The models after.
        sae: Whose latents they are.
        prompts: What all read.
        site: Where the SAE was trained.
        positions: A name of SELECTIONS, a `TokenSet` or a mask.
        answers: One for each prompt, read after it.
        clusters: Of each prompt; by default each is its own.
        budget: Bytes that bound the dense latents of a chunk.
        block: Prompts that are read at a time.
    """
    first, others, prompts = as_language_model(first), list(map(as_language_model, others)), prompts_of(prompts)
    answers = answers_of(answers)
    refuse("to rank latents on", prompts)
    if not len(prompts) or not others:
        raise EmlabError("a latent shift needs prompts and a second model: give at least one of each.")
    if clusters is not None and len(clusters) != len(prompts):
        raise EmlabError(f"there are {len(clusters)} clusters for {len(prompts)} prompts: give one for each prompt.")
    site = Site.parse(site)
    check_site(sae, site)
    check_same_tokens(first, others, prompts, answers)
    where, models = select(first, prompts, positions), [first, *others]
    groups = _clusters(len(prompts), clusters)
    running = _Running(len(models), sae.cfg.d_sae, device_of(sae))
    for members in _blocks(groups, block):
        index = [i for group in members for i in group]
        asked = [prompts[i] for i in index]
        said = None if answers is None else [answers[i] for i in index]
        reads = [model.activations(asked, site, part(where, index), said) for model in models]
        for model, read in zip(models, reads, strict=True):
            check_width(sae, read.values.shape[1], f"{model.name} at {site}")
        cluster = torch.tensor([g for g, group in enumerate(members) for _ in group])
        weights = (1 / _counts(reads[0].rows, len(index), positions))[reads[0].rows]
        owner = cluster[reads[0].rows]
        at_once = max(1, budget // (4 * sae.cfg.d_sae))
        for begin in range(0, len(members), at_once):
            these = (owner >= begin) & (owner < begin + at_once)
            sizes = torch.tensor([float(len(group)) for group in members[begin : begin + at_once]])
            sums = (
                _sums(sae, r.values[these], weights[these], owner[these] - begin, len(sizes), budget) for r in reads
            )
            running.add(sums, sizes)
    return [
        LatentShift(first.name, other.name, site, described(positions), len(prompts), *running.result(k))
        for k, other in enumerate(others, 1)
    ]


class _Running:
    """Sums over clusters of prompts, from which means and standard errors follow; (models, d_sae) float64 each."""

    def __init__(self, models: int, d_sae: int, device: torch.device) -> None:
        self.total, self.square, self.cross = torch.zeros(3, models, d_sae, dtype=torch.float64, device=device)
        self.prompts, self.squared_sizes, self.clusters = 0.0, 0.0, 0

    def add(self, sums: Iterable[Tensor], sizes: Tensor) -> None:
        """`sums` are, model by model, the sums (clusters, d_sae) over the prompts of each cluster."""
        before: Tensor | None = None
        sizes = sizes.double().to(self.total.device)
        for k, of_model in enumerate(sums):
            self.total[k] += of_model.sum(0, dtype=torch.float64)
            before = of_model if before is None else before
            for n, rise in zip(sizes, of_model - before, strict=True):  # a row at a time: float64 is twice as large
                rise = rise.double()
                self.square[k] += rise.square()
                self.cross[k] += n * rise
        self.prompts += float(sizes.sum())
        self.squared_sizes += float(sizes.square().sum())
        self.clusters += len(sizes)

    def result(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean before, mean after and standard error of the rise, each (d_sae,) float32, on the CPU."""
        n, many = self.prompts, self.clusters
        rise = (self.total[k] - self.total[0]) / n
        spread = self.square[k] - 2 * rise * self.cross[k] + rise.square() * self.squared_sizes
        error = (spread.clamp_min(0) * many / (many - 1)).sqrt() / n if many > 1 else torch.full_like(rise, math.nan)
        return (self.total[0] / n).float().cpu(), (self.total[k] / n).float().cpu(), error.float().cpu()


def _sums(sae: SAE, values: Tensor, weights: Tensor, owner: Tensor, owners: int, budget: int) -> Tensor:
    """(owners, d_sae): the weighted sums of the latents of tokens (n, d_in) over the tokens of each owner."""
    total = torch.zeros(owners, sae.cfg.d_sae, device=device_of(sae))
    for rows, dense in dense_chunks(sae, values, budget):
        total.index_add_(0, owner[rows].to(total.device), dense.mul_(weights[rows, None].to(dense)))
    return total


def _counts(rows: Tensor, prompts: int, positions: Positions) -> Tensor:
    """(prompts,) float32: how many tokens of each were read; EmlabError where one has none."""
    tokens = torch.zeros(prompts).index_add_(0, rows, torch.ones(len(rows)))
    if empty := int((tokens == 0).sum()):
        raise EmlabError(
            f"{empty} of {prompts} prompts have no token at the positions {described(positions)!r}: choose 'header' or "
            "'prompt', or give answers."
        )
    return tokens


def _clusters(prompts: int, clusters: Sequence[Hashable] | None) -> list[list[int]]:
    """Which prompts belong together."""
    found: dict[Hashable, list[int]] = {}
    for i in range(prompts):
        found.setdefault(i if clusters is None else clusters[i], []).append(i)
    return list(found.values())


def _blocks(groups: Sequence[list[int]], block: int) -> Iterator[list[list[int]]]:
    """The clusters in runs of about `block` prompts; none is divided."""
    run: list[list[int]] = []
    for group in groups:
        if run and sum(map(len, run)) + len(group) > block:
            yield run
            run = []
        run.append(group)
    yield run


def mean_shift(shifts: Sequence[LatentShift]) -> LatentShift:
    """The shifts of several fine-tunes of one model as one: their mean. This is what latents are ranked by.

    The standard error is that of a mean of independent shifts, which they are only nearly: the model before is shared.
    """
    if not shifts:
        raise EmlabError("there are no latent shifts to average: give at least one.")
    first = shifts[0]
    where = [(s.site, s.positions, s.prompts, len(s.before), s.model_before) for s in shifts]
    if len(set(where)) > 1:
        raise EmlabError(
            "the latent shifts differ in site, positions, prompts, SAE or first model: average like with like."
        )
    return LatentShift(
        first.model_before,
        " + ".join(s.model_after for s in shifts),
        first.site,
        first.positions,
        first.prompts,
        torch.stack([s.before for s in shifts]).mean(0),
        torch.stack([s.after for s in shifts]).mean(0),
        torch.stack([s.standard_error for s in shifts]).square().sum(0).sqrt() / len(shifts),
    )
