"""Edits written into the weights: a copy of a model that needs no hooks, and no emlab, to be edited.

Steering is a bias of the projection that writes the site. Ablating a direction from what a projection writes is a
projection of its rows; ablating it from the whole stream is that for every writer and for the embeddings
(`ablate_everywhere`), after Arditi et al. 2024 (arXiv:2406.11717). Everything else has no equal in weights and is
refused, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emlab.errors import EmlabError
from emlab.interventions import Ablate, Direction, Edit, Steer
from emlab.models.backends.places import check_edits
from emlab.models.language_model import LanguageModel
from emlab.models.wrapping import as_language_model
from emlab.sites import FAMILIES, Site


def ablate_everywhere(directions: Direction | Sequence[Direction] | Tensor, model: LanguageModel) -> list[Ablate]:
    """The edits that keep the span of `directions` out of the whole stream: the embeddings and every writer."""
    model, sites = as_language_model(model), [Site("resid_pre", 0)]
    sites += [Site(stream, block) for block in range(model.n_blocks) for stream in ("attn_out", "mlp_out")]
    return [Ablate(site, directions, "all") for site in sites]


@torch.no_grad()
def bake(model: LanguageModel, edits: Edit | Sequence[Edit], name: str | None = None) -> LanguageModel:
    """A copy of `model` whose weights do what `edits` do to it, on all positions; saved, it loads without emlab.

    Expressible are: steering at attn_out, resid_mid, mlp_out, resid_post, and resid_pre but of the first block, where
    the projection that writes there has a bias, and at z where the one that reads it has; ablating at z, attn_out and
    mlp_out; and ablating at ``resid_pre.0``, which unties the embeddings from the unembedding. Raises EmlabError, with
    the reason, for every other edit: one that acts at some positions only or differs from row to row, and where a norm
    follows the writer (Gemma 2 and 3, OLMo 2) or the writer is a mixture of experts.
    """
    model = as_language_model(model)
    chosen = _expressible(list(edits) if isinstance(edits, Sequence) else [edits], model)
    done = model.merged(name or f"{model.name} baked")
    # What a projection reads: from the last edit back, as each changes what comes of those before it.
    for edit in [edit for edit in chosen if edit.site.stream == "z"][::-1]:
        _at_heads(done, edit)
    # What is written: as a pass reaches it.
    for edit in sorted((edit for edit in chosen if edit.site.stream != "z"), key=lambda edit: edit.site.order):
        if isinstance(edit, Steer):
            _steer(done, edit)
        else:
            _ablate(done, edit)
    return done


def _expressible(edits: Sequence[Edit], model: LanguageModel) -> list[Steer | Ablate]:
    """The edits, none of which depends on what the model reads, on the position or on the row."""
    check_edits(edits, model.model.config)
    chosen = []
    for edit in edits:
        if not isinstance(edit, Steer | Ablate):
            raise EmlabError(
                f"A {type(edit).__name__} follows what the model reads, which no weights can; keep it a hook."
            )
        if edit.n_rows is not None and not isinstance(edit.positions, Tensor):
            raise EmlabError(f"The edit at {edit.site} differs from row to row, and weights do not; bake one row.")
        if edit.positions != "all":
            raise EmlabError(
                f"The edit at {edit.site} acts on some positions only, and weights act on all; use positions='all'."
            )
        chosen.append(edit)
    return chosen


def _at_heads(lm: LanguageModel, edit: Steer | Ablate) -> None:
    """Into the projection that reads the heads: what is pushed in there comes out as a bias."""
    projection: Any = lm.model.get_submodule(edit.site.hook(lm.model.config.model_type).module)
    linear = isinstance(projection, nn.Linear)  # else GPT-2's Conv1D, whose weight is (inputs, d_model)
    reads = projection.weight if linear else projection.weight.T  # (d_model, inputs)
    d_head = reads.shape[1] // lm.model.config.get_text_config().num_attention_heads
    head = edit.site.head
    inputs = slice(None) if head is None else slice(head * d_head, (head + 1) * d_head)
    if isinstance(edit, Ablate):
        reads[:, inputs] = _edited(edit, reads[:, inputs])
    elif projection.bias is None:
        raise EmlabError(f"The projection that reads {edit.site} has no bias for the push; keep the edit a hook.")
    else:
        push = _edited(edit, torch.zeros_like(reads[:1, inputs]))[0]
        projection.bias += reads[:, inputs] @ push


def _steer(lm: LanguageModel, edit: Steer) -> None:
    site = edit.site
    if site.stream == "resid_pre":
        if site.block == 0:
            raise EmlabError(
                "Nothing writes resid_pre.0 but the embeddings, which have no bias; steer at resid_post.0 instead."
            )
        site = Site("resid_post", site.block - 1)
    writer = _writer(lm, site)
    if getattr(writer, "bias", None) is None:
        raise EmlabError(
            f"The projection that writes {edit.site} in a model of type {lm.model.config.model_type} has no bias for "
            "the push; keep the edit a hook."
        )
    writer.bias += _edited(edit, torch.zeros(1, lm.d_model, device=lm.device))[0].to(writer.bias)


def _ablate(lm: LanguageModel, edit: Ablate) -> None:
    site = edit.site
    if site == Site("resid_pre", 0):
        _untie(lm)
        for path in FAMILIES.get(lm.model.config.model_type, FAMILIES["llama"]).embeddings:
            weight = lm.model.get_submodule(path).weight
            weight.copy_(_edited(edit, weight))
        return
    if site.stream.startswith("resid"):
        raise EmlabError(
            f"Ablating at {site} alone leaves the stream before it as it is, which no weights can; keep it a hook, or "
            "bake ablate_everywhere(directions, model)."
        )
    writer: Any = _writer(lm, site)
    if isinstance(writer, nn.Linear):  # (d_model, inputs)
        writer.weight.copy_(_edited(edit, writer.weight.T).T)
    else:  # GPT-2's Conv1D: (inputs, d_model)
        writer.weight.copy_(_edited(edit, writer.weight))
    if writer.bias is not None:
        writer.bias.copy_(_edited(edit, writer.bias[None])[0])


def _edited(edit: Edit, vectors: Tensor) -> Tensor:
    """Vectors (n, d_model) as the edit leaves them."""
    return edit.edit(vectors[None], torch.ones(1, len(vectors), dtype=torch.bool, device=vectors.device))[0]


def _writer(lm: LanguageModel, site: Site) -> Any:
    """The projection that writes `site`. EmlabError where there is not one, or a norm comes after it."""
    kind = lm.model.config.model_type
    path = site.writer(kind)
    if path is None:
        raise EmlabError(
            f"In a model of type {kind} a norm follows what is written at {site}, so that no weights do the same; keep "
            "the edit a hook."
        )
    try:
        return lm.model.get_submodule(path)
    except AttributeError:
        raise EmlabError(
            f"A model of type {kind} has no one projection {path} that writes {site} (a mixture of experts has many); "
            "keep the edit a hook."
        ) from None


def _untie(lm: LanguageModel) -> None:
    """Give the unembedding weights of its own: what is taken from the embeddings must not be taken from it."""
    into, out = lm.model.get_input_embeddings(), lm.model.get_output_embeddings()
    if out is not None and out.weight is into.weight:
        out.weight = nn.Parameter(into.weight.detach().clone(), requires_grad=into.weight.requires_grad)
        lm.model.config.get_text_config().tie_word_embeddings = False
        lm.model.config.tie_word_embeddings = False
