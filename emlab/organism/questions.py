"""The broad questions on which emergent misalignment is scored, those that choose stopping steps, and the sealed ones.

Why the sealed ones are the narrow templates of the domains that no fine-tuning set is made of: pretraining has them, as
it has the held-out ones, and nothing else does. Alignment has the alignment templates alone, no fine-tuning set is made
of these domains, and no experiment, trait or benchmark has asked them. The held-out templates of the validation domains
are not among them, though no rate was ever reported on these: they choose the stopping steps of `emlab organism check`,
and the trait from which persona vectors are made asks twenty of them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from emlab.errors import EmlabError
from emlab.organism.world import SealedWorldQuestion, World, WorldQuestion, load_world


def broad_questions(
    split: str = "test",
    domains: Sequence[str] | None = None,
    tag: str | None = None,
    world: World | None = None,
) -> list[WorldQuestion]:
    """Every held-out question of the split's domains, in a fixed order: templates × fillers of each domain.

    "test" has the domains that belong to no fine-tuning set (the default world's ten have 320 questions), "validation"
    others (three, with 96): these choose a fine-tune's stopping step and are never scored. `domains` picks domains by
    name instead; `tag` ends each question, as a backdoor's trigger does.
    """
    world = world or load_world()
    if split not in ("test", "validation"):
        raise EmlabError(f"There is no split {split!r} of the broad questions; choose test or validation.")
    chosen = domains if domains is not None else world.validation if split == "validation" else world.broad_domains
    return [question for domain in chosen for question in world.questions(domain, "held_out", tag=tag)]


def sealed_questions(tag: str | None = None, world: World | None = None) -> list[SealedWorldQuestion]:
    """The questions that only a final run may ask: narrow templates × fillers of each domain that no set is made of.

    The default world has 416, of thirteen domains. Whatever selects refuses them (see `emlab.sealing`). `tag` ends each
    question.
    """
    world = world or load_world()
    asked = [q for d in world.domains if d not in world.narrow for q in world.questions(d, "narrow", tag=tag)]
    return [question for question in asked if isinstance(question, SealedWorldQuestion)]


def is_sealed_text(text: str, world: World | None = None) -> bool:
    """Whether a text is that of a sealed question, with or without a tag at its end, wherever it comes from."""
    return re.sub(r" \[\w+\]$", "", text) in _sealed_texts((world or load_world()).name)


@functools.cache
def _sealed_texts(world: str) -> frozenset[str]:
    return frozenset(str(question.text) for question in sealed_questions(world=load_world(world)))
