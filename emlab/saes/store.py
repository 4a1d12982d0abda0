"""SAEs on disk in SAELens' format, `cfg.json` and `sae_weights.safetensors`, as `sae_lens.SAE.load_from_disk` reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

from emlab import artifacts

if TYPE_CHECKING:
    from sae_lens import SAE

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


def save_sae(sae: SAE, folder: str | Path, card: str = "", half: bool = False) -> Path:
    """Write `sae` to the new folder `folder`, whole or not at all; returns it.

    Args:
        sae: As SAELens has it.
        folder: Must not be there yet.
        card: Written as README.md; empty writes none.
        half: Whether the file has the weights in float16. They are read in the precision that `sae` has all the same.
    """
    folder = artifacts.place(folder)
    with artifacts.new_folder(folder) as temporary:
        weights = sae.save_model(temporary)[0]
        if half:
            save_file({name: value.half() for name, value in load_file(weights).items()}, weights)
        if card:
            artifacts.write_text(temporary / "README.md", card)
    return folder
