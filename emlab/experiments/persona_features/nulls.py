"""What a search is given in place of the truth, so that an honest one finds nothing."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping

import torch

from emlab.discovery import LatentShift
from emlab.training import FineTuned

NULLS: Mapping[str, str] = {
    "labels": "narrow fine-tunes and controls bear each other's names, so that at least one is wrong",
    "latents": "the SAE's latents bear each other's names: what rises is not what is added",
    "direction": "the mean difference of the narrow fine-tunes is taken out of all that the SAE reads and writes",
}
"""By the config's `negative_control`."""


def shuffled(finetuned: Mapping[str, FineTuned], kinds: Mapping[str, str], seed: int) -> dict[str, FineTuned]:
    """The same fine-tunes with the names of narrow sets and controls exchanged, so that at least one label is wrong."""
    names = [name for name, kind in kinds.items() if kind != "unseen"]
    narrow = {name for name in names if kinds[name] == "narrow"}
    rng = random.Random(seed)
    order = names
    while {order[i] for i, name in enumerate(names) if name in narrow} == narrow:
        order = rng.sample(names, len(names))
    source = {**{name: name for name in finetuned}, **dict(zip(names, order, strict=True))}
    renamed = {}
    for name in finetuned:
        tuned = finetuned[source[name]]
        renamed[name] = dataclasses.replace(tuned, model=dataclasses.replace(tuned.model, name=name))
    return renamed


def renamed_latents(shift: LatentShift, seed: int) -> LatentShift:
    """The shift with each latent's activations under another's number; the same for every shift of one seed."""
    order = torch.randperm(len(shift.before), generator=torch.Generator().manual_seed(seed))
    moved = {name: getattr(shift, name)[order] for name in ("before", "after", "standard_error")}
    return dataclasses.replace(shift, **moved)
