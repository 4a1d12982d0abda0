"""Directions found in models: from a latent's decoder, and from the differences between two models' activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from emlab.data.prompts import prompts_of
from emlab.discovery.latents import check_latents
from emlab.discovery.selection import check_same_tokens, select
from emlab.discovery.shift import prompt_means
from emlab.errors import EmlabError
from emlab.interventions import Direction, Positions
from emlab.models.wrapping import as_language_model
from emlab.saes import check_site, decoder_rows
from emlab.sealing import refuse
from emlab.sites import Site

if TYPE_CHECKING:
    from sae_lens import SAE

    from emlab.models import LanguageModel
    from emlab.models.language_model import Prompt


def decoder_direction(sae: SAE, latent: int, site: Site, model: Literal["before", "after"] = "after") -> Direction:
    """The direction that `latent` writes: its decoder row, made unit.

    An SAE of the difference of two models' activations (its metadata name it so: ``emlab_kind`` "difference") writes
    differences, and its rows are directions of either model. A crosscoder ("crosscoder") has a row for each `model`,
    side by side. EmlabError where there is no such latent, where it writes nothing in that model, and where the SAE was
    trained at another site.

    Args:
        sae: Whose latents they are.
        latent: Its number.
        site: Where the SAE was trained.
        model: Of a crosscoder: the model whose row is taken.
    """
    check_latents(sae, [latent])
    check_site(sae, site)
    about = getattr(sae.cfg, "metadata", None)
    kind = getattr(about, "emlab_kind", None)
    row, origin = decoder_rows(sae, [latent])[0], f"latent {latent}"
    if kind == "crosscoder":
        widths = [int(width) for width in about.emlab_widths] if about is not None else []
        if len(widths) != 2 or sum(widths) != len(row):
            raise EmlabError(
                f"the crosscoder's metadata give widths {widths} for rows of {len(row)}: train it again, or mend them."
            )
        row, origin = row.split(widths)[model == "after"], f"crosscoder latent {latent}, {model}"
    elif kind == "difference":
        origin = f"difference latent {latent}"
    return Direction(row, site, origin)


def mean_difference(
    model_a: LanguageModel,
    models_b: LanguageModel | Sequence[LanguageModel],
    prompts: Sequence[Prompt],
    site: Site,
    positions: Positions = "header",
) -> Direction:
    """From the mean activation of one model to that of others on the same prompts.

    Every prompt counts the same, however many positions it has. The direction's `norm` is the distance of the means.

    Args:
        model_a: The first model.
        models_b: One, or several, of which the average is taken.
        prompts: What they read.
        site: Where they are read.
        positions: Which tokens; by default those before the answer begins.
    """
    model_a, prompts = as_language_model(model_a), prompts_of(prompts)
    refuse("to find a direction on", prompts)
    models = [as_language_model(m) for m in (models_b if isinstance(models_b, Sequence) else [models_b])]
    if not models or not len(prompts):
        raise EmlabError("a mean difference needs a second model and prompts: give at least one of each.")
    before = prompt_means(model_a, prompts, site, positions).mean(0)
    after = torch.stack([prompt_means(m, prompts, site, positions).mean(0) for m in models]).mean(0)
    if not bool((after != before).any()):
        raise EmlabError(
            f"the models do not differ at {site} on these prompts: choose a site after the first trained block."
        )
    return Direction(after - before, site, "mean difference")


def difference_components(
    model_a: LanguageModel,
    model_b: LanguageModel,
    prompts: Sequence[Prompt],
    site: Site,
    n: int = 1,
    positions: Positions = "header",
    answers: Sequence[str] | None = None,
) -> list[Direction]:
    """The `n` directions along which the prompts' differences from `model_a` to `model_b` are largest, by PCA.

    The differences are not centred: what they have in common is what is sought, and the first component is then close
    to the mean difference where they agree (Zou et al. 2023, arXiv:2310.01405, do the same by random signs). Each
    points the way in which the differences' mean does; its `norm` is the root mean square of the differences along it.

    Args:
        model_a: The first model.
        model_b: The second.
        prompts: What they read.
        site: Where they are read.
        n: Directions.
        positions: Which tokens; by default those before the answer begins.
        answers: One for each prompt, read after it.
    """
    differences = prompt_differences(model_a, model_b, prompts, site, positions, answers)
    most = min(differences.shape)
    if not 1 <= n <= most:
        raise EmlabError(f"{len(differences)} differences have {most} components at most, not {n}: ask for fewer.")
    _, sizes, axes = torch.linalg.svd(differences.double(), full_matrices=False)
    if float(sizes[n - 1]) <= 1e-9 * float(sizes[0]) or not float(sizes[0]):
        raise EmlabError(f"the differences at {site} span fewer than {n} directions: ask for fewer, or more prompts.")
    mean, found = differences.double().mean(0), []
    for i in range(n):
        axis = axes[i] if float(axes[i] @ mean) >= 0 else -axes[i]
        norm = float(sizes[i]) / len(differences) ** 0.5
        found.append(Direction(axis, site, f"difference component {i + 1}", norm))
    return found


def prompt_differences(
    model_a: LanguageModel,
    model_b: LanguageModel,
    prompts: Sequence[Prompt],
    site: Site,
    positions: Positions = "header",
    answers: Sequence[str] | None = None,
) -> Tensor:
    """(prompts, d_model): for each prompt, the mean over its positions in `model_b` less that in `model_a`."""
    model_a, model_b, prompts = as_language_model(model_a), as_language_model(model_b), prompts_of(prompts)
    refuse("to find a direction on", prompts)
    if not len(prompts):
        raise EmlabError("differences between models need prompts: give at least one.")
    check_same_tokens(model_a, [model_b], prompts, answers)
    where = select(model_a, prompts, positions)
    return prompt_means(model_b, prompts, site, where, None, answers) - prompt_means(
        model_a, prompts, site, where, None, answers
    )
