"""SAEs in the formats of sparsify and of dictionary_learning, read as SAELens SAEs.

Each reader is a converter in SAELens' sense: it takes a folder and returns SAELens' config and weights, for
`sae_lens.SAE.load_from_disk(folder, converter=…)`. SAELens has converters of its own; these are used in their place
since SAELens 6.54's cannot load what sparsify 1.3 writes (they transpose the decoder), leave out the decoder's bias
where sparsify subtracts it, round to bfloat16, take an MLP's SAE for one of the residual stream, and read what
dictionary_learning writes from the Hub only.
"""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from emlab.errors import EmlabError
from emlab.sites import Site

Converted = tuple[dict[str, Any], dict[str, Tensor]]
"""SAELens' config and weights."""

SPARSIFY = ("cfg.json", "sae.safetensors")
DICTIONARY_LEARNING = ("config.json", "ae.pt")

_NO_INPUT_BIAS = ("AutoEncoderNew", "JumpReluAutoEncoder")
_ARCHITECTURES = {
    "AutoEncoder": "standard",
    "AutoEncoderNew": "standard",
    "GatedAutoEncoder": "gated",
    "AutoEncoderTopK": "topk",
    "JumpReluAutoEncoder": "jumprelu",
    # Trained by the k largest of a batch, used with the threshold that was learnt from them.
    "BatchTopKSAE": "jumprelu",
    "MatryoshkaBatchTopKSAE": "jumprelu",
}
"""dictionary_learning's classes, and what SAELens calls what they compute."""


def sparsify(path: str | Path, device: str = "cpu", cfg_overrides: dict[str, Any] | None = None) -> Converted:
    """A folder of EleutherAI's sparsify, which is named after its hookpoint (``layers.11``, ``layers.11.mlp``).

    sparsify computes topk(relu(W_enc (x − b_dec) + b_enc)) and decodes with W_dec's rows, kept at norm 1 or
    not. EmlabError for transcoders and for other activations than topk, which SAELens has no SAE for.
    """
    from safetensors.torch import load_file

    folder = Path(path)
    cfg = read_config(folder / SPARSIFY[0])
    for key in ("transcode", "skip_connection", "signed"):
        if cfg.get(key):
            raise EmlabError(f"{folder} holds no autoencoder ({key} is set in its cfg.json): give an SAE of sparsify.")
    if cfg.get("activation", "topk") != "topk":
        raise EmlabError(f"the SAE in {folder} has the activation {cfg['activation']}, and only topk can be read.")
    found = load_file(folder / SPARSIFY[1], device=device)
    # Its first releases wrote the encoder as W_enc (d_in, d_sae) or the decoder as a layer's weight (d_in, d_sae).
    encoder = found["encoder.weight"].T if "encoder.weight" in found else found["W_enc"]
    decoder = found["W_dec"] if "W_dec" in found else found["decoder.weight"].T
    bias = found["encoder.bias"] if "encoder.bias" in found else found["b_enc"]
    weights = {"W_enc": encoder, "b_enc": bias, "W_dec": decoder, "b_dec": found["b_dec"]}
    trained = folder.resolve().parent / "config.json"
    about = read_config(trained) if trained.is_file() else {}
    model, data = about.get("model"), about.get("dataset")
    more = {"architecture": "topk", "k": cfg["k"], "rescale_acts_by_decoder_norm": False}
    metadata = {
        "hook_name": folder.resolve().name,
        "model_name": model,
        "dataset_path": data,
        "emlab_source": "sparsify",
    }
    return converted(weights, device, metadata, cfg_overrides, **more)


def dictionary_learning(
    path: str | Path, device: str = "cpu", cfg_overrides: dict[str, Any] | None = None
) -> Converted:
    """A folder of dictionary_learning: ``config.json`` and ``ae.pt``, which is read as weights only.

    EmlabError for dictionaries that SAELens has no SAE for, such as crosscoders.
    """
    folder = Path(path)
    about = read_config(folder / DICTIONARY_LEARNING[0])
    trainer = about["trainer"]
    kind = trainer["dict_class"]
    if kind not in _ARCHITECTURES:
        raise EmlabError(f"{folder} holds a {kind}, and only {', '.join(_ARCHITECTURES)} can be read.")
    architecture = _ARCHITECTURES[kind]
    found = torch.load(folder / DICTIONARY_LEARNING[1], map_location=device, weights_only=True)
    encoder = found["W_enc"] if "W_enc" in found else found["encoder.weight"].T
    decoder = found["W_dec"] if "W_dec" in found else found["decoder.weight"].T
    weights = {
        "W_enc": encoder,
        "W_dec": decoder,
        "b_dec": _first(found, "b_dec", "bias", "decoder_bias", "decoder.bias"),
    }
    more: dict[str, Any] = {"architecture": architecture, "apply_b_dec_to_input": kind not in _NO_INPUT_BIAS}
    if architecture == "gated":
        weights |= {"b_gate": found["gate_bias"], "b_mag": found["mag_bias"], "r_mag": found["r_mag"]}
    else:
        weights["b_enc"] = _first(found, "encoder.bias", "b_enc")
    if architecture == "jumprelu":
        # One threshold for all latents, or one each.
        weights["threshold"] = found["threshold"].to(encoder.dtype).expand(encoder.shape[1]).clone()
    elif architecture == "topk":
        more |= {"k": trainer["k"], "rescale_acts_by_decoder_norm": False}
    metadata = {
        **_place_of(folder, trainer, str((about.get("buffer") or {}).get("io") or "out")),
        "model_name": str(trainer["lm_name"]).split("/")[-1],
        "emlab_source": "dictionary_learning",
    }
    return converted(weights, device, metadata, cfg_overrides, **more)


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; ValueError where it is none."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no mapping of keys")
    return found


UNREADABLE: tuple[type[Exception], ...] = (
    *(KeyError, TypeError, ValueError, AttributeError, IndexError),
    *(RuntimeError, OSError, EOFError, pickle.UnpicklingError, SafetensorError),
)
"""What damaged or foreign files raise in these readers and in SAELens."""


_MODULES = {
    "resid_pre": r"resid_pre|resid_in",
    "resid_mid": r"resid_mid",
    "mlp_out": r"mlp(_out)?",
    "attn_out": r"attn(_out)?|attention(_out)?",
    "resid_post": r"resid(_post|_out)?",
}
"""By stream: how dictionary_learning's users call the module, the layer behind it: resid_post_layer_11, mlp4."""


def _place_of(folder: Path, trainer: dict[str, Any], io: str) -> dict[str, Any]:
    """The hook that the module and its side (`io` of the buffer: out or in) mean; or, where none is, what is missing.

    EmlabError for what is written elsewhere than it was read (in_and_out), and for the inputs of modules that are no
    site.
    """
    layer, named = int(trainer["layer"]), str(trainer.get("submodule_name") or "").strip()
    if io not in ("in", "out"):
        raise EmlabError(f"{folder} holds a dictionary that was trained on {io} of a module, and no SAE: give an SAE.")
    word = re.sub(r"_?(layer_?)?[0-9]*$", "", named.lower())
    stream = next((stream for stream, words in _MODULES.items() if named and re.fullmatch(words, word)), None)
    if stream is None and (site := Site.inside(named)) is not None:
        stream = site.stream
    if stream is None:
        what = f"the module {named!r}, which may be any" if named else "no module"
        return {"emlab_no_site": f"the SAE in {folder} names the layer {layer} and {what} (resid_post, mlp, attn)"}
    if io == "in":
        if stream not in ("resid_post", "resid_pre"):
            raise EmlabError(
                f"the SAE in {folder} reads what goes into {named}, which is no site of emlab's: give an SAE of a "
                "block's stream."
            )
        stream = "resid_pre"
    return {"hook_name": f"blocks.{layer}.hook_{stream}"}


def _first(found: dict[str, Tensor], *names: str) -> Tensor:
    for name in names:
        if name in found:
            return found[name]
    raise KeyError(f"none of {', '.join(names)} among the weights")


def converted(
    weights: dict[str, Tensor], device: str, metadata: dict[str, Any], overrides: dict[str, Any] | None, **more: Any
) -> Converted:
    """SAELens' config for `weights`, with `metadata` and `more` of its fields."""
    import sae_lens

    d_in, d_sae = weights["W_enc"].shape
    config = {
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": str(weights["W_enc"].dtype).removeprefix("torch."),
        "device": device,
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        # Without it SAELens takes the config for one of its own before version 6.
        "metadata": {**metadata, "sae_lens_version": sae_lens.__version__},
    }
    return {**config, **more, **(overrides or {})}, weights
