"""What latents stand for: where they fire, for whom, what they promote, what a language model calls them, and whether
that is right."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emlab import artifacts, records
from emlab.data import Documents
from emlab.discovery.activity import Activity
from emlab.discovery.context_reading import ContextSettings, read_contexts
from emlab.discovery.contexts import Context, LatentContexts, Quantile
from emlab.discovery.latent_weights import LatentWeights, latent_weights
from emlab.discovery.latents import check_latents
from emlab.discovery.name_scores import NameScore, score_names
from emlab.discovery.naming import LatentName, Namer, name_latents
from emlab.errors import EmlabError
from emlab.notebook import Shown
from emlab.saes import Exclusions, fitted_site
from emlab.saes.token_rows import Counts
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel

POOL = 8
"""Latents drawn at random, from which the controls of names are taken."""


@dataclass(frozen=True)
class InterpretedLatent:
    """All that is told of one latent."""

    latent: int
    activity: tuple[Activity, ...]
    """In all documents, and then in those of each kind."""
    top: tuple[Context, ...]
    """Around its strongest activations."""
    quantiles: tuple[Quantile, ...]
    """Over the whole distribution of its activation, from the weakest part to the strongest."""
    weights: LatentWeights
    name: LatentName | None = None
    """None where no language model was asked."""
    scores: tuple[NameScore, ...] = ()
    """Of the name: detection and fuzzing."""

    @property
    def fires(self) -> bool:
        """Whether it is active on any token of the corpus."""
        return bool(self.top)

    @property
    def highest(self) -> Activity | None:
        """The kind of documents in which its mean activation is highest, by the lower end of its interval, so that no
        two documents win by chance; None where it is silent, or no kind has two documents."""
        kinds = [one for one in self.activity[1:] if one.documents > 1 and one.mean > 0]
        return max(kinds, key=lambda one: one.interval[0], default=None)


@dataclass(frozen=True, repr=False)
class Interpretation(Shown, records.Saved):
    """What is told of some latents of an SAE, from one corpus."""

    model: str
    site: Site
    documents: str
    """What the corpus is called."""
    counts: Counts
    """What became of its tokens."""
    seed: int
    latents: tuple[InterpretedLatent, ...]
    named_by: str = ""
    """The language model that named them; empty where none did."""

    def latent(self, number: int) -> InterpretedLatent:
        """One of the latents. EmlabError where it is not among them."""
        for one in self.latents:
            if one.latent == number:
                return one
        among = ", ".join(str(one.latent) for one in self.latents)
        raise EmlabError(f"latent {number} is not among those interpreted ({among}): choose one of these.")

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON."""
        return artifacts.write_json(path, {**artifacts.plain(self), "site": str(self.site)})

    def __str__(self) -> str:
        lines = [f"latents at {self.site} of {self.model} on {self.documents}: {self.counts}"]
        for one in self.latents:
            everywhere = one.activity[0]
            if not one.fires:
                lines.append(f"latent {one.latent}: never active on these {everywhere.tokens:,} tokens")
                continue
            share = everywhere.active / everywhere.tokens
            lines.append(
                f"latent {one.latent}: active on {share:.2%} of the tokens, in {everywhere.fires} documents, peak "
                f"{everywhere.peak:.2f}"
            )
            if (most := one.highest) is not None:
                low, high = most.interval
                lines.append(
                    f"  most in {most.column} {most.value} ({most.documents} documents): mean {most.mean:.3f} "
                    f"[{low:.3f}, {high:.3f}], all {everywhere.mean:.3f}"
                )
            lines.append(f"  strongest: {one.top[0].text!r}")
            if one.weights.promoted:
                lines.append("  promotes " + " ".join(repr(e.token) for e in one.weights.promoted[:8]))
            if one.name is not None:
                lines.append(f"  named {one.name.name!r}" if one.name.name else f"  no name: {one.name.failure}")
            lines += [f"  {score}" for score in one.scores]
        return "\n".join(lines)


@dataclass(frozen=True)
class InterpretSettings:
    """What is shown of a latent, and how a corpus is read."""

    top: int = 16
    """Strongest contexts."""
    quantiles: int = 5
    """Parts of the distribution of its activation, from which further contexts are drawn."""
    each: int = 3
    """Contexts of each part."""
    side: int = 16
    """Tokens on either side of a context's own."""
    tokens: int = 10
    """Promoted and suppressed tokens, and neighbours, so many of each."""
    exclude: Exclusions = Exclusions()
    """Tokens that do not count."""
    max_length: int = 1024
    """Chats are cut after, and raw texts into pieces of, so many tokens."""


def interpret(
    model: LanguageModel,
    sae: SAE,
    latents: Sequence[int],
    documents: Any,
    site: Site | None = None,
    namer: Namer | None = None,
    settings: InterpretSettings = InterpretSettings(),
    seed: int = 0,
) -> Interpretation:
    """Tell of each of `latents` where it fires in `documents`, in documents of which kind, and what its weights say.

    Args:
        model: Who reads.
        sae: Whose latents they are.
        latents: Their numbers.
        documents: `Documents` (whose labels are the kinds), or what `Documents.of` takes; they are gone through once
            and are never all in memory.
        site: Where the SAE reads; by default where it was trained.
        namer: Names each latent; its names are tested by detection and fuzzing, beside the same on other latents'
            excerpts. None asks no language model.
        settings: What is shown.
        seed: By which contexts, and the latents of the controls, are drawn.

    EmlabError for latents that the SAE lacks, an SAE of another width, and no documents. A latent that never fires is
    told to be that.
    """
    quantiles, each = settings.quantiles, settings.each
    where, chosen = fitted_site(sae, model) if site is None else site, list(dict.fromkeys(latents))
    check_latents(sae, chosen)
    corpus = Documents.of(documents)
    drawn = [] if namer is None else _drawn(sae.cfg.d_sae, chosen, seed)
    sample, silent = quantiles * each, 0
    if namer is not None:  # half of them are for naming, and fuzzing takes twice as many as detection
        sample, silent = max(sample, 5 * namer.tests), 3 * namer.tests
    kept = ContextSettings(settings.top, sample, silent, settings.side, settings.exclude, settings.max_length)
    read = read_contexts(model, sae, [*chosen, *drawn], where, corpus, kept, seed)
    found, others = read.latents[: len(chosen)], read.latents[len(chosen) :]
    names: tuple[LatentName, ...] = ()
    scores: tuple[NameScore, ...] = ()
    if namer is not None:
        names = name_latents(found, namer, seed)
        scores = score_names(found, names, others, namer, seed)
    told = latent_weights(model, sae, chosen, where, settings.tokens)
    return Interpretation(
        model.name,
        where,
        read.documents,
        read.counts,
        seed,
        tuple(
            _interpreted(one, weights, names[i] if names else None, scores, quantiles, each)
            for i, (one, weights) in enumerate(zip(found, told, strict=True))
        ),
        "" if namer is None else namer.by.name,
    )


def _interpreted(
    one: LatentContexts,
    weights: LatentWeights,
    name: LatentName | None,
    scores: Sequence[NameScore],
    quantiles: int,
    each: int,
) -> InterpretedLatent:
    own = tuple(score for score in scores if score.latent == one.latent)
    return InterpretedLatent(one.latent, one.activity, one.top, one.quantiles(quantiles, each), weights, name, own)


def _drawn(d_sae: int, but: Sequence[int], seed: int) -> list[int]:
    """Latents to take controls from: at most POOL of the others."""
    rng, taken = random.Random(seed), set(but)
    found: list[int] = []
    for latent in rng.sample(range(d_sae), min(d_sae, POOL + len(taken))):
        if latent not in taken and len(found) < POOL:
            found.append(latent)
    return found
