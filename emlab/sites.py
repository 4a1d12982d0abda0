"""Sites: one table of the places in a transformer, and each library's name for them.

A site is a stream of a block. Blocks are counted from 0, everywhere:

- ``resid_pre.1``   the residual stream before the second block
- ``z.1``           what the heads of the second block's attention give, side by side, before the output projection
- ``z.1.3``         that of its fourth head alone
- ``attn_out.1``    what the second block's attention adds to the stream
- ``resid_mid.1``   the residual stream between the second block's attention and its MLP
- ``mlp_out.1``     what the second block's MLP adds to the stream
- ``resid_post.1``  the residual stream after the second block (= ``resid_pre.2``)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from emlab.errors import EmlabError

STREAMS = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_out", "resid_post")
"""In the order in which a forward pass reaches them."""

INSIDE: dict[str, tuple[str, ...]] = {
    "resid_pre": ("hook_resid_pre", "hook_in", "input", "resid_pre"),
    "z": ("attn.hook_z", "hook_z", "self_attn.o_proj.input", "attn.c_proj.input", "attention.dense.input", "z"),
    "attn_out": ("hook_attn_out", "attn.hook_out", "attn_out", "self_attn", "attn", "attention"),
    "resid_mid": ("hook_resid_mid", "resid_mid"),
    "mlp_out": ("hook_mlp_out", "mlp.hook_out", "mlp_out", "mlp"),
    "resid_post": ("hook_resid_post", "hook_out", "resid_post", "", "output"),
}
"""What may follow a block's path, with or without ``.output`` behind a module's name: of TransformerLens and SAELens,
Hugging Face transformers, and sparsify."""

_BLOCK = re.compile(r"(?:.*\.)?(?:layers|h|blocks)[._]([0-9]{1,6})(?:[._](.+))?", re.ASCII)


class Family(NamedTuple):
    """Module names of one architecture family in Hugging Face transformers."""

    blocks: str
    """Path of the list of blocks."""
    attention: str
    """Inside a block: the module whose output attention adds to the stream."""
    mlp: str
    """Inside a block: the module whose output the MLP adds to the stream."""
    heads: str = "self_attn.o_proj"
    """Inside a block: attention's output projection, which reads what the heads give."""
    middle: str = "post_attention_layernorm"
    """Inside a block: the first module that reads the stream between attention and MLP."""
    mlp_writer: str = "mlp.down_proj"
    """Inside a block: the projection by which the MLP writes."""
    post_norm: bool = False
    """Whether a norm comes after the two projections that write."""
    embeddings: tuple[str, ...] = ("model.embed_tokens",)
    """Paths of the embeddings whose sum begins the stream."""


_LLAMA = Family("model.layers", "self_attn", "mlp")
# These normalise what attention and MLP return before adding it, so the sum is seen after that norm.
_POST_NORM = Family(
    "model.layers",
    "post_attention_layernorm",
    "post_feedforward_layernorm",
    middle="pre_feedforward_layernorm",
    post_norm=True,
)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "olmo": _LLAMA,
    "phi3": _LLAMA,
    "qwen3_moe": _LLAMA,
    "mixtral": _LLAMA,
    "gpt_oss": _LLAMA,
    "gemma2": _POST_NORM,
    "gemma3_text": _POST_NORM,
    "olmo2": _POST_NORM._replace(middle="mlp"),  # it has no norm before the MLP
    "gemma3": _POST_NORM._replace(
        blocks="model.language_model.layers", embeddings=("model.language_model.embed_tokens",)
    ),
    "gpt2": Family(
        "transformer.h",
        "attn",
        "mlp",
        heads="attn.c_proj",
        middle="ln_2",
        mlp_writer="mlp.c_proj",
        embeddings=("transformer.wte", "transformer.wpe"),
    ),
    "gpt_neox": Family(
        "gpt_neox.layers",
        "attention",
        "mlp",
        heads="attention.dense",
        mlp_writer="mlp.dense_4h_to_h",
        embeddings=("gpt_neox.embed_in",),
    ),
}
"""By ``config.model_type``; a type that is not listed is taken to follow Llama, as most decoders do."""


class Hook(NamedTuple):
    """Where a site lies in a Hugging Face model."""

    module: str
    """Path of the module, as in ``model.get_submodule``."""
    side: Literal["input", "output"]
    """Whether the site is what goes into the module or what comes out."""


@dataclass(frozen=True)
class Site:
    """A stream of a block, such as ``resid_post.1``, or a head, such as ``z.1.3``."""

    stream: str
    """One of resid_pre, z, attn_out, resid_mid, mlp_out, resid_post."""
    block: int
    """The block, counted from 0."""
    head: int | None = None
    """Of the stream z: one head, counted from 0; None for all of them, side by side."""

    def __post_init__(self) -> None:
        if self.stream not in STREAMS:
            raise EmlabError(f"There is no stream {self.stream!r}; the streams are {', '.join(STREAMS)}.")
        if self.block < 0:
            raise EmlabError(f"A site's block is counted from 0, so {self.block} is none; give 0 for the first block.")
        if self.head is not None and (self.stream != "z" or self.head < 0):
            raise EmlabError(
                f"The stream {self.stream} has no head {self.head}; heads are counted from 0 and are of the stream z, "
                "such as z.1.3."
            )

    def __str__(self) -> str:
        return f"{self.stream}.{self.block}" + ("" if self.head is None else f".{self.head}")

    @property
    def whole(self) -> Site:
        """The site with all its heads."""
        return self if self.head is None else Site(self.stream, self.block)

    @property
    def place(self) -> Site:
        """The site by the one of its names that all share: ``resid_pre.2`` is where ``resid_post.1`` is."""
        if self.stream == "resid_pre" and self.block > 0:
            return Site("resid_post", self.block - 1)
        return self

    @property
    def order(self) -> tuple[int, int]:
        """A key that sorts sites as a forward pass reaches them."""
        return self.block, STREAMS.index(self.stream)

    @classmethod
    def parse(cls, text: str | Site, head: int | None = None) -> Site:
        """Read ``"resid_post.1"`` or ``"z.1.3"``, or another library's name.

        That may be one of TransformerLens or SAELens, such as ``"blocks.1.hook_resid_post"`` (SAELens gives a head
        apart, as `hook_head_index`: pass it as `head`), or, as newer SAELens has it, the path of a Hugging Face module,
        such as ``"model.layers.1"``. What a path means can depend on the architecture: where it does, EmlabError says
        so, and `at` reads it.
        """
        if isinstance(text, Site):
            return text
        name = text.strip()
        if match := re.fullmatch(r"([a-z_]+)\.([0-9]{1,6})(?:\.([0-9]{1,6}))?", name, re.ASCII):
            return cls(match[1], int(match[2]), head if match[3] is None else int(match[3]))
        if name.startswith("blocks.") and (found := cls.inside(name, head)) is not None:
            return found
        meant = {_at(name, "output", family) for family in FAMILIES.values() if name.startswith(f"{family.blocks}.")}
        if len(meant) == 1 and (site := meant.pop()) is not None:
            return site
        if meant - {None}:
            raise EmlabError(
                f"What lies at {name!r} depends on the architecture; say which by Site.at({name!r}, model_type), or "
                "write a stream and a block, such as resid_post.1."
            )
        raise EmlabError(f"{text!r} is no site; write a stream and a block counted from 0, such as resid_post.1.")

    @classmethod
    def inside(cls, name: str, head: int | None = None) -> Site | None:
        """The site that a library calls `name`, the path of a block and what is in it; None where that is no site.

        As `INSIDE` has it, whatever the architecture: a block itself means what comes out of it, and a module what it
        adds to the stream.
        """
        match = _BLOCK.fullmatch(name.strip())
        within = "" if match is None else match[2] or ""
        for stream, names in INSIDE.items():
            if match is not None and (within in names or within.removesuffix(".output") in names):
                return cls(stream, int(match[1]), head)
        return None

    @classmethod
    def at(cls, module: str, model_type: str, side: Literal["input", "output"] = "output") -> Site:
        """The site at a module of a Hugging Face model with ``config.model_type == model_type``.

        EmlabError where no site lies there.
        """
        site = _at(module, side, FAMILIES.get(model_type, _LLAMA))
        if site is None:
            raise EmlabError(
                f"At the {side} of {module!r} a model of type {model_type} has no site; name a block's input or output."
            )
        return site

    @property
    def lens_name(self) -> str:
        """The name in TransformerLens and in SAELens, such as ``blocks.1.hook_resid_post``; it does not say the head.

        TransformerLens holds ``blocks.1.attn.hook_z`` as (batch, position, head, d_head). SAELens puts the heads side
        by side as emlab does, or takes one, its `hook_head_index`.
        """
        return f"blocks.{self.block}.attn.hook_z" if self.stream == "z" else f"blocks.{self.block}.hook_{self.stream}"

    def writer(self, model_type: str) -> str | None:
        """Path of the projection whose output this site is, or ends with; None where a norm comes after it.

        What the MLP's projection writes last is also the last thing that a block adds to the stream, so it is the
        writer of resid_post, and attention's is that of resid_mid. EmlabError for resid_pre, which the embeddings
        write, and for z, which is no projection's output.
        """
        family = FAMILIES.get(model_type, _LLAMA)
        if self.stream == "resid_pre":
            raise EmlabError(f"{self} has no projection that writes it; take resid_post of the block before.")
        if self.stream == "z":
            raise EmlabError(f"{self} is what attention's projection reads, so none writes it; take attn_out.")
        inside = family.heads if self.stream in ("attn_out", "resid_mid") else family.mlp_writer
        return None if family.post_norm else f"{family.blocks}.{self.block}.{inside}"

    def hook(self, model_type: str) -> Hook:
        """Where the site lies in a Hugging Face model with ``config.model_type == model_type``.

        EmlabError for resid_mid in a type that is not listed: what reads it there is not known.
        """
        if self.stream == "resid_mid" and model_type not in FAMILIES:
            raise EmlabError(
                f"Which module of a model of type {model_type} reads {self} is not known; add the type to "
                "emlab.sites.FAMILIES."
            )
        return _hook(self, FAMILIES.get(model_type, _LLAMA))

    def nnsight_name(self, model_type: str) -> str:
        """What follows the model's name in an nnsight trace, such as ``model.layers[1].mlp.output``; no head.

        Where a module returns a tuple, as attention does, the site is its first entry.
        """
        hook = self.hook(model_type)
        return re.sub(r"\.([0-9]+)", r"[\1]", f"{hook.module}.{hook.side}")

    @classmethod
    def from_nnsight(cls, name: str, model_type: str) -> Site:
        """Read what `nnsight_name` writes. EmlabError where no site lies there."""
        module, _, side = re.sub(r"\[([0-9]{1,6})\]", r".\1", name.strip()).rpartition(".")
        family = FAMILIES.get(model_type, _LLAMA)
        site = _at(module, side, family) if side in ("input", "output") else None
        if site is None or site.nnsight_name(model_type) != name.strip():
            raise EmlabError(f"At {name!r} a model of type {model_type} has no site; name a block's input or output.")
        return site


def _hook(site: Site, family: Family) -> Hook:
    block = f"{family.blocks}.{site.block}"
    return {
        "resid_pre": Hook(block, "input"),
        "z": Hook(f"{block}.{family.heads}", "input"),
        "attn_out": Hook(f"{block}.{family.attention}", "output"),
        "resid_mid": Hook(f"{block}.{family.middle}", "input"),
        "mlp_out": Hook(f"{block}.{family.mlp}", "output"),
        "resid_post": Hook(block, "output"),
    }[site.stream]


def _at(module: str, side: str, family: Family) -> Site | None:
    """The site at a module's side, if there is one."""
    if match := re.fullmatch(re.escape(family.blocks) + r"\.([0-9]{1,6})(\..+)?", module, re.ASCII):
        sites = (Site(stream, int(match[1])) for stream in STREAMS)
        return next((site for site in sites if _hook(site, family) == (module, side)), None)
    return None
