"""The texts that a persona-features run reads: its SAEs learn from some, and are tested on others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emlab.data import Dataset, Messages
from emlab.errors import EmlabError
from emlab.experiments.material.documents import documents_for, for_template, pretraining_chats
from emlab.experiments.material.sets import dataset_place
from emlab.experiments.persona_features.sources import sae_source
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.experiments.persona_features.config import Config
    from emlab.models import LanguageModel


LEAST_CHATS = 32
"""An SAE is tested on this many chats at least: where latents are ranked, a chat may have one token only."""


@dataclass(frozen=True)
class Texts:
    """Three sets of chats that share none."""

    training: list[Messages]
    """For SAEs to learn from."""
    test: list[Messages]
    """For their fidelity."""
    held_out: list[Messages]
    """For losses under edits, and for contexts."""
    personas: tuple[str, ...] = ()
    """Who wrote each of `held_out`; empty where nobody knows."""
    knowable: tuple[bool, ...] = ()
    """Whether a card or an earlier turn tells it."""


def texts_of(config: Config, base: LanguageModel, aligned: LanguageModel) -> Texts:
    """The organism's pretraining documents, as many as the config's tokens take, or the dataset it names as text."""
    seed, sae = config.seed, config.sae
    if config.text is not None:
        return _divided(config, base)
    fresh = documents_for(aligned, config.documents, config.reported(seed) + 2)
    return Texts(
        pretraining_chats(base, sae.tokens, seed) if _trains(config) else [],
        pretraining_chats(base, sae.test_tokens, seed + 1),
        for_template(aligned, [d.messages for d in fresh]),
        tuple(d.persona for d in fresh),
        tuple(d.carded or len(d.messages) > 3 for d in fresh),
    )


def _trains(config: Config) -> bool:
    return any(sae_source(config, Site.parse(site)) is None for site in config.sites)


def _divided(config: Config, model: LanguageModel) -> Texts:
    """The chats of the dataset in an order drawn by the seed: held-out ones, a tenth (or as many) to test, the rest.

    Of those to test, no more than the config's tokens take.
    """
    chats = [example.messages for example in Dataset.read(dataset_place(str(config.text))).examples]
    random.Random(config.seed).shuffle(chats)
    held = min(config.documents, len(chats) // 3)
    test = max(len(chats) // 10, min(held, len(chats) // 3))
    if not held:
        raise EmlabError(f"{config.text} has {len(chats)} chats, and a run needs 3 at least: give more.")
    given = for_template(model, chats)
    tested = enough(model, given[held : held + test], config.sae.test_tokens)
    return Texts(given[held + test :], tested, given[:held])


def enough(model: LanguageModel, chats: Sequence[Messages], tokens: int) -> list[Messages]:
    """The first of the chats, as many as it takes to read `tokens` tokens of them, and LEAST_CHATS where there are."""
    count, kept = 0, list[Messages]()
    for chat in chats:
        if count >= tokens and len(kept) >= LEAST_CHATS:
            break
        (row,), _ = model.rows([chat])
        kept.append(chat)
        count += len(row) - 1  # its first token is not counted
    return kept
