"""The verdict on an SAE: which models it describes, on which tokens, by bounds that were fixed before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.notebook import Shown
from emlab.saes.check import ClassFidelity, ModelCheck, check_model
from emlab.saes.fitting import sae_site
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.data import Messages
    from emlab.models import LanguageModel

_WORDS = {"all": "tokens", "prompt": "prompts", "header": "assistant headers", "answer": "answers"}

JUDGED = ("all", "prompt", "header", "answer")
"""The classes a verdict is about: latents are read there. Special and first tokens are only reported."""


@dataclass(frozen=True)
class Bounds:
    """What an SAE must keep to, to be trusted on a model."""

    least_variance: float = 0.5
    """Least explained variance. Below a half, more of what a model does lies outside of the SAE than in it."""
    most_drop: float = 0.25
    """A fine-tune may have so much less variance explained than its base. What a fine-tune adds is new to the SAE by
    definition; once a quarter of the variance is new, its latents rank what the fine-tune left alone."""
    least_recovered: float = 0.5
    """Least share of the loss kept against mean ablation: an SAE may explain variance that the model does not use."""

    def __post_init__(self) -> None:
        if self.most_drop < 0:
            raise ValueError(f"'most_drop' is {self.most_drop} and must be 0 or more.")


@dataclass(frozen=True)
class Faithful:
    """Whether an SAE describes a model on a class of tokens."""

    model: str
    tokens: str
    """The class."""
    holds: bool
    said: str
    """What was measured, in a sentence."""


def faithful(model: str, tokens: str, found: ClassFidelity, base: ClassFidelity | None, bounds: Bounds) -> Faithful:
    """The verdict on one model and class of tokens.

    Args:
        model: The model's name.
        tokens: The class of tokens.
        found: What was measured there.
        base: The same of the base model; None for the base itself.
        bounds: What counts as faithful.
    """
    value, kept = found.explained_variance.value, found.loss_recovered.value
    wrong = []
    if not value >= bounds.least_variance:  # nan fails
        wrong.append(f"less than {bounds.least_variance:.0%} explained")
    said = f"{value:.1%} of the variance of {model} on its {_WORDS.get(tokens, tokens)} is explained"
    if base is not None:
        drop = base.explained_variance.value - value
        said += f", {abs(drop):.1%} {'less' if drop >= 0 else 'more'} than of the base's"
        if not drop <= bounds.most_drop:
            wrong.append(f"a drop of more than {bounds.most_drop:.0%}")
    if math.isfinite(kept):
        said += f", and {kept:.1%} of the loss kept"
        if kept < bounds.least_recovered:
            wrong.append(f"less than {bounds.least_recovered:.0%} of the loss kept")
    return Faithful(model, tokens, not wrong, f"{said}: {' and '.join(wrong)}." if wrong else f"{said}.")


@dataclass(frozen=True, repr=False)
class SaeCheck(Shown):
    """An SAE on a base model and its fine-tunes, and the verdicts."""

    sae: str
    site: Site
    models: tuple[ModelCheck, ...]
    """The base first."""
    bounds: Bounds

    @property
    def verdicts(self) -> tuple[Faithful, ...]:
        """By model and class of JUDGED."""
        base, *_ = self.models
        return tuple(
            faithful(m.model, c, m.classes[c], None if m is base else base.classes.get(c), self.bounds)
            for m in self.models
            for c in JUDGED
            if c in m.classes
        )

    @property
    def holds(self) -> bool:
        """Whether every verdict does."""
        return all(verdict.holds for verdict in self.verdicts)

    def summary(self) -> dict[str, Any]:
        """All figures as plain values."""
        plain: dict[str, Any] = artifacts.plain(
            {
                "sae": self.sae,
                "site": str(self.site),
                "bounds": self.bounds,
                "holds": self.holds,
                "verdicts": self.verdicts,
                "models": {m.model: {"sinks": m.sinks, "dropped": m.dropped, **m.classes} for m in self.models},
            }
        )
        return plain

    def table(self) -> list[tuple[str, ...]]:
        """A row for each model and class, under a header."""
        rows: list[tuple[str, ...]] = [
            ("model", "tokens of", "n", "explained variance", "by dimension", "L0", "dead", "dense", "loss kept")
            + ("against zeros", "norm", "bias γ", "cosine")
        ]
        for m in self.models:
            for name, f in m.classes.items():
                rows.append(
                    (m.model, name, f"{f.tokens:,}", str(f.explained_variance), f.explained_by_dimension.short)
                    + (f"{f.l0.value:.1f}", str(f.dead), str(f.dense), str(f.loss_recovered))
                    + tuple(e.short for e in (f.loss_recovered_zero, f.norm_ratio, f.reconstruction_bias, f.cosine))
                )
        return rows

    def __str__(self) -> str:
        rows = self.table()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        d_sae = self.models[0].classes["all"].d_sae
        head = f"SAE {self.sae} of {d_sae:,} latents at {self.site}; intervals are 95%, over documents"
        said = [f"  {'holds' if v.holds else 'FAILS'}  {v.model}, {v.tokens}: {v.said}" for v in self.verdicts]
        end = "The SAE describes every model." if self.holds else "The SAE does not describe every model: see FAILS."
        return "\n".join([head, *lines, *said, end])


def check_sae(
    sae: SAE,
    models: Sequence[LanguageModel],
    documents: Sequence[Messages],
    bounds: Bounds | None = None,
    name: str = "",
    resamples: int = 200,
    batch_size: int = 32,
    seed: int = 0,
) -> SaeCheck:
    """`check_model` on each of `models`, and the verdicts. EmlabError without a model.

    Args:
        sae: The SAE.
        models: The base first, by which the others are judged.
        documents: Chats, the same for all.
        bounds: What counts as faithful; None takes the defaults.
        name: What to call the SAE in tables.
        resamples: Of the bootstrap over documents that the intervals are from.
        batch_size: Documents in one pass.
        seed: Of the bootstrap.
    """
    if not models:
        raise EmlabError("There is no model to check the SAE on; give the base and its fine-tunes.")
    found = tuple(check_model(sae, model, documents, resamples, batch_size, seed) for model in models)
    return SaeCheck(name or sae.cfg.architecture(), sae_site(sae), found, bounds or Bounds())
