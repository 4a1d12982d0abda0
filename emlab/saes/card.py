"""The card that lies beside a trained SAE."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from emlab.saes.crosscoder import Crosscoder
from emlab.saes.token_rows import Counts

if TYPE_CHECKING:
    from emlab.saes.fidelity import Fidelity
    from emlab.saes.train import SaeTraining

_WHAT = {
    "plain": "the activations of `{0}`",
    "difference": "the activations of `{1}` minus those of `{0}` at the same tokens",
    "crosscoder": "the activations of `{0}` and of `{1}` at the same tokens, side by side (a crosscoder)",
}


def training_card(training: SaeTraining, measured: Fidelity, half: bool = False) -> str:
    """A card in Hugging Face's form: what the SAE reads, how it was trained, and how faithful it is.

    `half` says that its weights were rounded to float16 before that was measured.
    """
    cfg, about, recipe = training.sae.cfg, training.about, training.recipe
    active = f"{cfg.k} active on a token" if hasattr(cfg, "k") else "those active that pass their threshold"
    settings = "\n".join(f"| {f.name} | {getattr(recipe, f.name)} |" for f in fields(recipe))
    read = {"all": "all", "prompt": "the prompt's", "assistant": "the assistant's"}[about.read]
    counted = f" Tokens: {Counts(**training.counts)}." if training.counts else ""
    rounded = "\nIts weights were then rounded to float16, and are kept so.\n" if half else ""
    compared = f"\n{Crosscoder.of(training.sae)}.\n" if about.kind == "crosscoder" else ""
    return f"""---
license: mit
library_name: saelens
tags: [sparse-autoencoder, emlab]
---
# SAE of {" and ".join(f"`{model}`" for model in about.models)} at {about.site}

A {cfg.architecture()} sparse autoencoder: {cfg.d_sae} latents, {active}.
It reads {_WHAT[about.kind].format(*about.models)} at `{about.site.lens_name}`, of width {cfg.d_in}.
Trained through SAELens on {recipe.samples:,} activations on {read} tokens of {about.documents}.{counted}
{rounded}
On documents it was not trained on: {measured}.
{compared}
| recipe | |
|---|---|
{settings}

    from sae_lens import SAE

    sae = SAE.load_from_disk("path/to/this/folder")
"""
