"""What remedies work with in a comparison: taken from fine-tunes of other domains than the treated ones."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from emlab import artifacts
from emlab.data import Dataset, Question
from emlab.discovery import LatentShift, difference_components, latent_shift, mean_difference, mean_shift, spread
from emlab.errors import EmlabError
from emlab.experiments.remedies.config import Config
from emlab.interventions import Direction, load_directions, save_directions
from emlab.mitigation import DataFilter, Latent, Materials, StoppingMonitor, answer_projection, remedies
from emlab.saes import encode as encoded
from emlab.sites import Site
from emlab.training import finetune

if TYPE_CHECKING:
    from collections.abc import Callable

    from emlab.models import LanguageModel

MONITORED = 32
"""Prompts that the monitor reads."""
SIFTED = 100
"""Chats of each kind on which the data filter is fitted."""


def make_materials(
    config: Config,
    start: LanguageModel,
    seed: int,
    discovery: Sequence[Question],
    chats: Callable[[str, int, int], Dataset],
    sae: Any | None,
    folder: Path,
) -> None:
    """Fine-tune `start` on the source sets and write what follows from that into `folder`.

    `chats` gives rows of a set by name, number and seed.
    """
    site, prompts = Site.parse(config.site), [list(q.messages) for q in discovery]
    sources = [
        finetune(start, chats(name, config.rows, seed), config.recipe, seed, progress=False, name=name).model
        for name in config.source
    ]
    found = [mean_difference(start, sources, prompts, site)]
    if config.components > 1:
        # The first component is the mean difference, all but.
        found += difference_components(start, sources[0], prompts, site, config.components)[1:]
    save_directions(found, folder / "directions.safetensors")
    monitored = [list(q.messages) for q in spread(discovery, min(MONITORED, len(discovery)))]
    monitor = StoppingMonitor.fit(found[0], monitored, start, sources)
    cutoff: float | None = None
    if any("data_filter" in kind.needs for kind in remedies() if kind.__name__ in config.remedies):
        bad, good = (chats(name, SIFTED, seed + 5) for name in (config.source[0], config.source_good))
        # Where it tells bad from good in no domain, the remedy that needs it is left out, and said to be.
        with contextlib.suppress(EmlabError):
            cutoff = DataFilter.fit(answer_projection(found[0]), start, bad, good).cutoff
    if sae is not None:
        mean_shift([latent_shift(start, source, sae, prompts, site) for source in sources]).save(folder / "shift.json")
    said = start.generate(monitored, config.answers.max_new_tokens, 0.0)
    mean = start.activations(monitored, site, "sentence", said).values.float().mean(0).cpu()  # (d_model,)
    Direction(mean, site, "mean").save(folder / "mean.safetensors")
    about = {
        "calm": monitor.calm,
        "alarmed": monitor.alarmed,
        "cutoff": cutoff,
        "scale": start.residual_norm(site, prompts),
    }
    artifacts.write_json(folder / "materials.json", about)


def read_materials(config: Config, discovery: Sequence[Question], sae: Any | None, folder: Path) -> Materials:
    """The materials that `make_materials` wrote, still without benign chats."""
    raw = artifacts.read_json(folder / "materials.json")
    directions = load_directions(folder / "directions.safetensors")
    monitored = tuple(list(q.messages) for q in spread(discovery, min(MONITORED, len(discovery))))
    mean = Direction.load(folder / "mean.safetensors")
    assert mean.norm is not None
    latents = (_along(directions[0]),) if sae is None else _latents(sae, folder, directions[0].site, config.latents)
    return Materials(
        " and ".join(config.source),
        tuple(dataclasses.replace(d, origin=f"{d.origin}, {config.source[0]}") for d in directions),
        raw["scale"],
        latents,
        prompt=config.prompt,
        monitor=StoppingMonitor(directions[0], monitored, raw["calm"], raw["alarmed"]),
        data_filter=None if raw["cutoff"] is None else DataFilter(answer_projection(directions[0]), raw["cutoff"]),
        mean=mean.vector * mean.norm,
    )


def _latents(sae: Any, folder: Path, site: Site, n: int) -> tuple[Latent, ...]:
    """The latents of the SAE that rise most in the sources."""

    def one(number: int) -> Latent:
        def encode(h: Tensor) -> Tensor:
            return encoded(sae, h.reshape(-1, h.shape[-1]), [number]).reshape(h.shape[:-1])

        return Latent(f"latent {number}", site, encode)

    return tuple(one(row.latent) for row in LatentShift.load(folder / "shift.json").top(n))


def _along(direction: Direction) -> Latent:
    """The part of the stream along the direction, where there is no SAE."""

    def encode(h: Tensor) -> Tensor:
        return (h @ direction.vector.to(h)).relu()

    return Latent(f"projection on {direction.origin}", direction.site, encode)
