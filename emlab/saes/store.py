"""SAEs on disk in SAELens' format, `cfg.json` and `sae_weights.safetensors`, as `sae_lens.SAE.load_from_disk` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.saes.fidelity import Fidelity
from emlab.sites import Site

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


def load_sae(folder: str | Path) -> SAE:
    """The SAE in `folder`, ready to encode. EmlabError if the folder holds no SAE in SAELens format."""
    folder = Path(folder)
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise EmlabError(f"{folder} holds no SAE ({' and '.join(missing)} missing): give a folder in SAELens format.")
    try:
        json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise EmlabError(f"{folder / CONFIG} cannot be read ({error}): restore or retrain the SAE.") from error

    from sae_lens import SAE
    from safetensors import SafetensorError

    try:
        sae = SAE.load_from_disk(folder)
    except (KeyError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
        raise EmlabError(
            f"the SAE in {folder} cannot be loaded ({str(error).splitlines()[0]}): restore or retrain it."
        ) from error
    return sae.eval().requires_grad_(False)


def sae_site(sae: SAE) -> Site:
    """The site that `sae` was trained at, from its metadata. EmlabError if it names none."""
    hook = sae.cfg.metadata.hook_name
    if not hook:
        raise EmlabError(
            "the SAE's metadata name no hook: set cfg.metadata.hook_name, e.g. 'blocks.1.hook_resid_post'."
        )
    return Site.parse(hook)
