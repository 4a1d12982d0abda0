"""Is an SAE to be trusted on a model and its fine-tunes? What `emlab sae check` calls.

The documents are chats, read by every model: the organism's pretraining documents, or a dataset. The first model is the
base, and the others are compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emlab.errors import EmlabError
from emlab.experiments.material.documents import documents_for, for_template
from emlab.experiments.material.models import folder_of
from emlab.experiments.material.sets import drawn
from emlab.models import LanguageModel
from emlab.saes import Bounds, SaeCheck, check_sae, load_sae


def check(
    sae: str | Path,
    models: Sequence[str],
    documents: str | None = None,
    n: int = 256,
    least_variance: float = Bounds.least_variance,
    most_drop: float = Bounds.most_drop,
    least_recovered: float = Bounds.least_recovered,
    dtype: str | None = None,
    chat_template: str | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> SaeCheck:
    """Check the SAE `sae` (see `load_sae`) on `models`: checkpoints of the organism, folders, or names on the Hub.

    `n` documents are read: drawn at random from the dataset `documents`, or fresh ones of the organism. Models are
    loaded one at a time. EmlabError where the SAE does not fit a model.
    """
    try:
        bounds = Bounds(least_variance, most_drop, least_recovered)
    except ValueError as error:
        raise EmlabError(str(error)) from error
    if len(set(models)) < len(models):
        raise EmlabError("A model is named twice; give the base and each fine-tune once.")
    if not models:
        raise EmlabError("There is no model to check the SAE on; give the base and its fine-tunes.")
    autoencoder = load_sae(sae)
    given = None if documents is None else [example.messages for example in drawn(documents, n, seed).examples]
    short = [Path(name).name for name in models]
    called = short if len(set(short)) == len(short) else models
    found: list[SaeCheck] = []
    for place, name in zip(models, called, strict=True):
        folder = folder_of(place)[0]
        model = LanguageModel.load(folder, dtype=dtype, name=name, chat_template=chat_template)
        autoencoder = autoencoder.to(model.device)
        # Not those that the shipped SAEs were trained on (seed 0), nor those of their cards' fidelity (seed 1).
        chats = [document.messages for document in documents_for(model, n, seed + 2)] if given is None else given
        read = for_template(model, chats)
        found.append(check_sae(autoencoder, [model], read, bounds, str(sae), batch_size=batch_size, seed=seed))
        del model
    return SaeCheck(str(sae), found[0].site, tuple(one for each in found for one in each.models), bounds)
