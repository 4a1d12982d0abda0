"""SAEs on disk in SAELens' format, `cfg.json` and `sae_weights.safetensors`, as `sae_lens.SAE.load_from_disk` reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from emlab import artifacts

if TYPE_CHECKING:
    from sae_lens import SAE

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


def save_sae(sae: SAE, folder: str | Path, card: str = "") -> Path:
    """Write `sae`, and a `card` as its README.md, to the new folder `folder`, whole or not at all; returns it."""
    folder = artifacts.place(folder)
    with artifacts.new_folder(folder) as temporary:
        sae.save_model(temporary)
        if card:
            artifacts.write_text(temporary / "README.md", card)
    return folder
