"""SAEs of two published suites as their folders lie on a disk: Gemma Scope 2, and Qwen Scope.

SAELens' list holds both (releases ``gemma-scope-2-…`` and ``qwen-scope-…``) and downloads them, but reads nothing that
was downloaded otherwise. These are converters in SAELens' sense, as in `converting`.

- Gemma Scope 2: a folder for each SAE, such as ``resid_post/layer_17_width_16k_l0_medium``, of ``config.json`` and
  ``params.safetensors``. JumpReLU; those of attention read what the heads give.
- Qwen Scope: a folder for each model, of one file for each block, ``layer0.sae.pt`` …, read as weights only. TopK of
  the residual stream; how many latents are kept stands in the folder's name alone, such as
  ``SAE-Res-Qwen3-1.7B-Base-W32K-L0_50``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from emlab.errors import EmlabError
from emlab.saes.converting import Converted, converted, read_config

GEMMA_SCOPE_2 = ("config.json", "params.safetensors")
QWEN_SCOPE = re.compile(r"layer([0-9]{1,6})\.sae\.pt", re.ASCII)

_STREAMS = {
    "resid_post": "hook_resid_post",
    "attn_out": "attn.hook_z",
    "mlp_out": "hook_mlp_out",
}
"""Gemma Scope 2's names of places, and SAELens'."""


def gemma_scope_2(path: str | Path, device: str = "cpu", cfg_overrides: dict[str, Any] | None = None) -> Converted:
    """A folder of Gemma Scope 2. EmlabError for its transcoders and crosscoders, for which emlab has no use."""
    from safetensors.torch import load_file

    folder = Path(path)
    about = read_config(folder / GEMMA_SCOPE_2[0])
    if about.get("architecture") not in ("jump_relu", "jumprelu"):
        raise EmlabError(
            f"the SAE in {folder} is a {about.get('architecture')}, and of Gemma Scope 2 jump_relu is read."
        )
    hook = str(about["hf_hook_point_in"])
    if about.get("hf_hook_point_out") not in (None, hook) or any(w in folder.name for w in ("clt", "crosscoder")):
        raise EmlabError(f"{folder} holds a transcoder or crosscoder of Gemma Scope 2 and no SAE: give an SAE.")
    found = load_file(folder / GEMMA_SCOPE_2[1], device=device)
    weights = {"W_enc": found["w_enc"], "W_dec": found["w_dec"]}
    weights |= {name: found[name] for name in ("b_enc", "b_dec", "threshold")}
    place = next((theirs for ours, theirs in _STREAMS.items() if ours in folder.resolve().as_posix()), None)
    layer = re.search(r"layers\.([0-9]{1,6})\.", hook)
    metadata = {
        "hook_name": hook if place is None or layer is None else f"blocks.{layer[1]}.{place}",
        "hf_hook_name": hook,
        # Its configs write gemma-v3-1b-pt for google/gemma-3-1b-pt.
        "model_name": str(about.get("model_name", "")).replace("-v3", "-3"),
        "emlab_source": "Gemma Scope 2",
    }
    return converted(weights, device, metadata, cfg_overrides, architecture="jumprelu", apply_b_dec_to_input=False)


def qwen_scope(path: str | Path, device: str = "cpu", cfg_overrides: dict[str, Any] | None = None) -> Converted:
    """A file of Qwen Scope. EmlabError where its folder's name does not say how many latents are kept."""
    file = Path(path)
    layer, named = QWEN_SCOPE.fullmatch(file.name), file.resolve().parent.name
    model, kept = re.search(r"SAE-Res-(.+?)-W[0-9]+K", named), re.search(r"-L0_([0-9]{1,6})", named)
    if layer is None or kept is None:
        raise EmlabError(
            f"{file} is an SAE of Qwen Scope, and how many latents it keeps stands in its folder's name alone: call "
            "the folder as it was published, such as SAE-Res-Qwen3-1.7B-Base-W32K-L0_50."
        )
    found = torch.load(file, map_location=device, weights_only=True)
    weights = {"W_enc": found["W_enc"].T, "W_dec": found["W_dec"].T, "b_enc": found["b_enc"], "b_dec": found["b_dec"]}
    metadata = {
        "hook_name": f"blocks.{layer[1]}.hook_resid_post",
        "model_name": "" if model is None else f"Qwen/{model[1]}",
        "emlab_source": "Qwen Scope",
    }
    more = {"architecture": "topk", "k": int(kept[1]), "rescale_acts_by_decoder_norm": False}
    return converted(weights, device, metadata, cfg_overrides, apply_b_dec_to_input=False, **more)
