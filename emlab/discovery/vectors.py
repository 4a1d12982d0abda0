"""One number a latent, on disk: as text where there are few latents, as tensors beside the text where many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emlab import artifacts
from emlab.errors import EmlabError

LISTED = 2**16
"""The vectors of up to so many latents are written as text."""


def write_vectors(path: str | Path, about: Mapping[str, Any], vectors: Mapping[str, Tensor]) -> Path:
    """Write `about` and the vectors (d_sae,) as JSON; of more than LISTED latents the vectors as safetensors beside."""
    from safetensors.torch import save

    path = artifacts.place(path)
    if all(len(vector) <= LISTED for vector in vectors.values()):
        return artifacts.write_json(path, {**about, **vectors})
    beside = path.with_suffix(".safetensors")
    artifacts.write_bytes(beside, save({name: vector.contiguous() for name, vector in vectors.items()}))
    return artifacts.write_json(path, {**about, "vectors": beside.name})


def read_vectors(path: str | Path, names: Sequence[str], what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `write_vectors` wrote: all but the vectors, and the vectors `names`. EmlabError where they are not there."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    raw = artifacts.read_json(path)
    try:
        if "vectors" in raw:
            beside = load((artifacts.place(path).parent / Path(raw.pop("vectors")).name).read_bytes())
            return raw, {name: beside[name] for name in names}
        listed = {name: [float("nan") if v is None else v for v in raw.pop(name)] for name in names}
        return raw, {name: torch.tensor(values, dtype=torch.float32) for name, values in listed.items()}
    except (AttributeError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise EmlabError(f"{path} holds no {what} ({error}); write it with its method save.") from error
