"""SAEs on disk in SAELens' format, `cfg.json` and `sae_weights.safetensors`, as `sae_lens.SAE.load_from_disk` reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from emlab import artifacts
from emlab.saes.fidelity import Fidelity
from emlab.saes.fitting import sae_site

if TYPE_CHECKING:
    from sae_lens import SAE

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


def save_sae(sae: SAE, folder: str | Path, card: str = "") -> Path:
    """Write `sae`, and a `card` as its README.md, to the new folder `folder`, whole or not at all; returns it."""
    folder = Path(folder)
    with artifacts.new_folder(folder) as temporary:
        sae.save_model(temporary)
        if card:
            artifacts.write_text(temporary / "README.md", card)
    return folder


def sae_card(sae: SAE, model: str, tokens: int, seed: int, measured: Fidelity) -> str:
    """A card in Hugging Face's form: what the SAE reads, how it was trained, and how faithful it is."""
    cfg = sae.cfg
    return f"""---
license: mit
library_name: saelens
tags: [sparse-autoencoder, emlab, model-organism]
---
# SAE of `{model}` at {sae_site(sae)}

A {cfg.architecture()} sparse autoencoder: {cfg.d_sae} latents, {getattr(cfg, "k", "some")} active on a token.
It reads `{cfg.metadata.hook_name}`, of width {cfg.d_in}. Trained through SAELens on {tokens:,} activations of the model
reading the organism's pretraining documents, seed {seed}.

On documents it was not trained on: {measured}.

    from sae_lens import SAE

    sae = SAE.load_from_disk("path/to/this/folder")
"""
