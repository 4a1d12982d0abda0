"""Where an SAE reads, by its own config, and whether it fits a model."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

from emlab.errors import EmlabError
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel

_BLOCK = re.compile(r"(?:.*\.)?(?:layers|h|blocks)[._]([0-9]{1,6})(?:[._](.+))?", re.ASCII)
"""A block's path in TransformerLens, Hugging Face transformers or sparsify, and what follows it."""

_STREAMS = {
    "resid_post": ("", "output", "hook_resid_post", "hook_out", "resid_post"),
    "resid_pre": ("input", "hook_resid_pre", "hook_in", "resid_pre"),
    "resid_mid": ("hook_resid_mid", "resid_mid"),
    "attn_out": ("hook_attn_out", "attn.hook_out", "attn_out", "self_attn", "attn", "attention"),
    "mlp_out": ("hook_mlp_out", "mlp.hook_out", "mlp_out", "mlp"),
}
"""What may follow it, with or without ``.output`` behind a module's name."""

_PUBLISHED = re.compile(
    r"(?<![a-z])(qwen|llama|gemma|gpt-oss|gpt2|mistral|pythia|phi|olmo)[-_ ]?v?(\d+(?:\.\d+)?)?(?![\d.]*[bm]\b)"
)
"""In a published model's name: its family, and the version behind it where a size is not what stands there."""

_TYPES = {"gpt-oss": "gpt_oss", "pythia": "gpt_neox"}
"""How `config.model_type` begins, where it does not begin with the family's name."""


def sae_site(sae: SAE) -> Site:
    """The site that `sae` reads, from its own metadata, in whichever library's spelling that is.

    EmlabError where it names none, where it reads a place that is no site (the heads' outputs before they are joined, a
    normalised stream), and for a transcoder, which reads one place and writes another.
    """
    about = sae.cfg.metadata
    hook = about.emlab_site or about.hook_name or about.hf_hook_name
    if not hook:
        raise EmlabError(
            "the SAE's metadata name no hook: set cfg.metadata.hook_name, e.g. 'blocks.1.hook_resid_post'."
        )
    if about.hook_name_out and about.hook_name_out != about.hook_name:
        raise EmlabError(f"this is a transcoder, from {hook} to {about.hook_name_out}, and no SAE: give an SAE.")
    return site_named(hook)


def site_named(hook: str) -> Site:
    """The site that a library calls `hook`: ``blocks.1.hook_resid_post``, ``model.layers.1``, ``layers.1.mlp``…

    The name of a block itself means what comes out of it. EmlabError where that is no site.
    """
    if re.fullmatch(r"[a-z_]+\.[0-9]+", hook) and hook.partition(".")[0] in _STREAMS:
        return Site.parse(hook)
    if match := _BLOCK.fullmatch(hook.strip()):
        inside = match[2] or ""
        for stream, names in _STREAMS.items():
            if inside in names or inside.removesuffix(".output") in names:
                return Site(stream, int(match[1]))
    raise EmlabError(f"the SAE reads {hook!r}, which is no site of emlab's: give an SAE of a block's stream.")


def fitted_site(sae: SAE, model: LanguageModel) -> Site:
    """The site at which `sae` reads `model`. EmlabError where it cannot be an SAE of that model.

    Refused are another width, a block that the model does not have, a model of another family, and a module whose
    output is not the site (in Gemma 2, what the MLP returns is normalised before it is added). Another version of the
    family, or one of another name, only warns: a fine-tune may be called anything.
    """
    site, d_in = sae_site(sae), sae.cfg.d_in
    if getattr(sae.cfg.metadata, "emlab_kind", None) == "crosscoder":
        raise EmlabError(
            f"the SAE at {site} is a crosscoder, which reads two models' activations side by side: read it by "
            "emlab.saes.Crosscoder."
        )
    if d_in != model.d_model:
        raise EmlabError(
            f"the SAE at {site} reads {d_in} dimensions and {model.name} has {model.d_model}: give an SAE of its width."
        )
    if site.block >= model.n_blocks:
        raise EmlabError(
            f"the SAE reads {site}, which is not in {model.name}, whose blocks are 0 to {model.n_blocks - 1}: give an "
            "SAE of this model."
        )
    kind = model.model.config.get_text_config().model_type
    hook = str(sae.cfg.metadata.hook_name or "")
    module = re.search(r"(?:layers|h)\.[0-9]+\.(?:mlp|self_attn|attn|attention)\b", hook)
    if module is not None and not site.hook(kind).module.endswith(module[0]):
        raise EmlabError(
            f"the SAE reads {hook}, whose output {kind} normalises before adding it, so that is not {site}: give "
            "an SAE of the stream."
        )
    _check_name(str(sae.cfg.metadata.model_name or ""), model, kind)
    return site


def _check_name(trained_on: str, model: LanguageModel, kind: str) -> None:
    """Refuse a model of another family than the SAE's; warn of another version."""
    theirs = _PUBLISHED.search(trained_on.lower().rpartition("/")[2])
    if theirs is None:  # a name that says nothing, such as "base"
        return
    family, version = theirs.groups()
    if not kind.startswith(_TYPES.get(family, family)):
        raise EmlabError(
            f"the SAE is of {trained_on}, and {model.name} is of the type {kind}: give an SAE of this model's family."
        )
    loaded: Any = getattr(model.model.config, "_name_or_path", "") or ""
    for name in (model.name, loaded):
        ours = _PUBLISHED.search(str(name).lower().rpartition("/")[2])
        if ours is not None and ours[1] == family and version and ours[2] and ours[2] != version:
            warnings.warn(
                f"the SAE is of {trained_on} and is used on {name}, another version of {family}: see by `emlab sae "
                "check` what it still explains.",
                stacklevel=3,
            )
            return


def neuronpedia_url(sae: SAE, latent: int) -> str | None:
    """The page of `latent` on Neuronpedia, where the SAE's metadata name its place there (as SAELens' list does)."""
    place = sae.cfg.metadata.neuronpedia_id
    return neuronpedia_page(place, latent) if place else None


def neuronpedia_page(place: str, latent: int) -> str:
    """The page of a latent of the SAE at `place` on Neuronpedia, such as ``qwen2.5-7b-it/11-resid-post-aa``."""
    return f"https://www.neuronpedia.org/{place}/{latent}"
