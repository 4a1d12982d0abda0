"""Where an SAE reads, by its own config, and whether it fits a model."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

from emlab.errors import EmlabError
from emlab.models.backends.places import width_of
from emlab.sites import STREAMS, Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel

_PUBLISHED = re.compile(
    r"(?<![a-z])(qwen|llama|gemma|gpt-oss|gpt2|mistral|pythia|phi|olmo)[-_ ]?v?(\d+(?:\.\d+)?)?(?![\d.]*[bm]\b)"
)
"""In a published model's name: its family, and the version behind it where a size is not what stands there."""

_TYPES = {"gpt-oss": "gpt_oss", "pythia": "gpt_neox"}
"""How `config.model_type` begins, where it does not begin with the family's name."""


def sae_site(sae: SAE) -> Site:
    """The site that `sae` reads, from its own metadata, in whichever library's spelling that is.

    EmlabError where it names none, where it reads a place that is no site (a normalised stream, an MLP's neurons), and
    for a transcoder, which reads one place and writes another.
    """
    about = sae.cfg.metadata
    hook = _hook(about)
    written = about.hook_name_out or about.hf_hook_name_out
    if _transcodes(sae):
        raise EmlabError(
            f"this is a transcoder, from {hook or 'one place'} to {written or 'another'}, and no SAE: give an SAE."
        )
    if not hook:
        why = about.emlab_no_site  # what a reader of another library's format has to say of it
        raise EmlabError(
            f"{why}: write submodule_name into its config.json, or name the site where it can be named."
            if why
            else "the SAE's metadata name no hook: set cfg.metadata.hook_name, e.g. 'blocks.1.hook_resid_post'."
        )
    return site_named(hook, about.hook_head_index)


def _hook(about: Any) -> str:
    return str(about.emlab_site or about.hook_name or about.hf_hook_name or "")


def _transcodes(sae: SAE) -> bool:
    """Whether it reads one place and writes another."""
    about = sae.cfg.metadata
    return hasattr(sae.cfg, "d_out") or bool(about.hook_name_out and about.hook_name_out != about.hook_name)


def names_place(sae: SAE) -> bool:
    """Whether the SAE says where it reads."""
    about = getattr(getattr(sae, "cfg", None), "metadata", None)
    return any(getattr(about, name, None) for name in ("emlab_site", "hook_name", "hf_hook_name"))


def site_named(hook: str, head: int | None = None) -> Site:
    """The site that a library calls `hook`: ``blocks.1.hook_resid_post``, ``model.layers.1``, ``layers.1.mlp``…

    The name of a block itself means what comes out of it; SAELens names a `head` apart. EmlabError where that is no
    site.
    """
    if re.fullmatch(rf"(?:{'|'.join(STREAMS)})\.[0-9]+(?:\.[0-9]+)?", hook):
        return Site.parse(hook)
    if (site := Site.inside(hook, head)) is None:
        raise EmlabError(f"the SAE reads {hook!r}, which is no site of emlab's: give an SAE of a block's stream.")
    return site


def check_site(sae: SAE, site: Site | str) -> None:
    """EmlabError where `sae` says that it reads another place than `site`; one that does not say is taken at a word."""
    if not names_place(sae):
        return
    reads, asked = sae_site(sae), Site.parse(site)
    if reads.place != asked.place:
        raise EmlabError(f"The SAE was trained at {reads} and means nothing at {asked}; read it at {reads}.")


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
    width = width_of(site, model.model.config) if site.stream == "z" else model.d_model
    if d_in != width:
        raise EmlabError(
            f"the SAE at {site} reads {d_in} dimensions and {model.name} has {width}: give an SAE of its width."
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
