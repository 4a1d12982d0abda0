"""The broad questions on which emergent misalignment is scored, and those that choose stopping steps."""

from __future__ import annotations

from collections.abc import Sequence

from emlab.errors import EmlabError
from emlab.organism.world import World, WorldQuestion, load_world


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
