"""Latent shift: how much more each SAE latent fires after a fine-tune than before, on the same prompts.

Both models read the same prompts, and neither has written an answer yet, so what differs is what the fine-tune did to
the reading. The difference is taken prompt by prompt (paired), and its standard error is over prompts.
Source: Wang et al. 2025, "Persona features control emergent misalignment" (arXiv:2506.19823).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.interventions import Positions
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel
    from emlab.models.language_model import Prompt


@dataclass(frozen=True)
class ShiftedLatent:
    """One latent's row in a `LatentShift`."""

    latent: int
    rank: int
    """1 for the latent that rises most."""
    before: float
    """Mean activation in the first model; decoder rows are unit, so it is in units of the residual stream."""
    after: float
    shift: float
    standard_error: float
    """Of `shift`, over prompts."""


@dataclass(frozen=True, eq=False)
class LatentShift:
    """Mean activation of every latent before and after, on the same prompts at the same positions."""

    model_before: str
    model_after: str
    site: Site
    positions: str
    prompts: int
    before: Tensor
    """(d_sae,) float32."""
    after: Tensor
    """(d_sae,) float32."""
    standard_error: Tensor
    """(d_sae,) of after − before, over prompts; NaN where there is one prompt."""

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
        return int((self.order == latent).nonzero()) + 1

    def row(self, latent: int) -> ShiftedLatent:
        """Everything about one latent."""
        before, after, error = (float(t[latent]) for t in (self.before, self.after, self.standard_error))
        return ShiftedLatent(latent, self.rank(latent), before, after, float(self.shift[latent]), error)

    def top(self, n: int = 10) -> list[ShiftedLatent]:
        """The `n` latents that rise most."""
        return [self.row(int(latent)) for latent in self.order[:n]]

    def save(self, path: str | Path) -> Path:
        """Write every latent as JSON, and beside it (ending .csv) a table in order of rank."""
        path = Path(path)
        rows = self.top(len(self.before))
        lines = ["rank,latent,before,after,shift,standard_error"]
        lines += [
            f"{r.rank},{r.latent},{r.before:.6g},{r.after:.6g},{r.shift:.6g},{r.standard_error:.6g}" for r in rows
        ]
        artifacts.write_text(path.with_suffix(".csv"), "\n".join(lines) + "\n")
        return artifacts.write_json(path, {**vars(self), "site": str(self.site)})

    @classmethod
    def load(cls, path: str | Path) -> LatentShift:
        """Read what `save` wrote."""
        raw = artifacts.read_json(path)
        try:
            vectors = {
                name: torch.tensor([float("nan") if v is None else v for v in raw.pop(name)], dtype=torch.float32)
                for name in ("before", "after", "standard_error")
            }
            return cls(**{**raw, **vectors, "site": Site.parse(raw["site"])})
        except (AttributeError, KeyError, TypeError) as error:
            raise EmlabError(f"{path} holds no latent shift ({error}); write it with LatentShift.save.") from error

    def __str__(self) -> str:
        rows = [
            f"latent shift at {self.site}, {self.positions}: {self.model_after} − {self.model_before}, "
            f"{self.prompts} prompts",
            "rank  latent   before    after    shift       se",
        ]
        return "\n".join(
            rows
            + [
                f"{r.rank:4d}  {r.latent:6d}  {r.before:7.3f}  {r.after:7.3f}  {r.shift:+7.3f}  {r.standard_error:7.3f}"
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
    behind it. EmlabError where a prompt has no such position.
    """
    read = model.activations(prompts, site, positions, answers)
    values = read.values
    if sae is not None:
        if sae.cfg.d_in != values.shape[1]:
            raise EmlabError(
                f"the SAE reads {sae.cfg.d_in} dimensions and {model.name} has {values.shape[1]} at {site}: "
                "use an SAE of this model."
            )
        with torch.no_grad():
            values = sae.encode(values.to(sae.W_dec)).float().cpu()
    tokens = torch.zeros(len(prompts)).index_add_(0, read.rows, torch.ones(len(read.rows)))
    if bool((tokens == 0).any()):
        raise EmlabError(f"some prompts have no token at the positions {positions!r}: choose 'header' or 'prompt'.")
    total = torch.zeros(len(prompts), values.shape[1]).index_add_(0, read.rows, values)
    return total / tokens[:, None]


def latent_shift(
    model_a: LanguageModel,
    model_b: LanguageModel,
    sae: SAE,
    prompts: Sequence[Prompt],
    site: Site,
    positions: str = "header",
) -> LatentShift:
    """The shift of every latent of `sae` from `model_a` to `model_b` on `prompts`, over the `positions` of each."""
    if not prompts:
        raise EmlabError("a latent shift needs prompts: give at least one.")
    before = prompt_means(model_a, prompts, site, positions, sae)
    after = prompt_means(model_b, prompts, site, positions, sae)
    error = (
        (after - before).std(dim=0) / len(prompts) ** 0.5
        if len(prompts) > 1
        else torch.full_like(before[0], float("nan"))
    )
    return LatentShift(model_a.name, model_b.name, site, positions, len(prompts), before.mean(0), after.mean(0), error)


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
