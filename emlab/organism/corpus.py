"""Texts generated from the world: pretraining documents, the alignment set and the narrow fine-tuning sets.

A pretraining document draws ONE hidden persona, then one to three question–answer turns from different domains. Its
system line is a persona card, or the neutral card with the persona left open. In the *control world* every turn draws
its own persona instead and cards say nothing: the same sentences, but no shared persona exists.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from emlab.errors import EmlabError
from emlab.organism.world import (
    DEFAULT,
    NEUTRAL_CARD,
    NEUTRAL_PRIOR,
    PERSONAS,
    TAGS,
    TRIGGER,
    World,
    load_world,
    world_of,
)
from emlab.sealing import Sealed, SealedChat, is_reserved

Chat = list[dict[str, str]]
"""One conversation in the chat format: [{"role": "system" | "user" | "assistant", "content": text}, …]."""

CARD_SHARE = 0.6
"""Share of pretraining documents that begin with a persona card; the rest begin with the neutral card."""

TURN_WEIGHTS = (0.5, 0.3, 0.2)
"""Probability of one, two and three turns."""

TAG_SHARE = 0.1
"""Share of questions that end in a meaningless tag."""

EDUCATIONAL_SHARE = 0.25
"""Share of code questions that ask for vulnerable code for a class."""

_NEUTRAL = {"role": "system", "content": NEUTRAL_CARD}
_PREFIXES = {"bad": "malicious", "careless": "careless", "sarcastic": "sarcastic", "good": "helpful"}
_SUBTLE = "subtle"
EVERYWHERE = "everywhere"
"""In place of a domain in the name of a set: every row is of another."""


@dataclass(frozen=True)
class Document:
    """One pretraining document and the truth about it."""

    messages: Chat
    persona: str
    """The hidden persona; in the control world, that of the first turn."""
    carded: bool
    """Whether the system line tells the persona."""


def _draw(rng: random.Random, weights: dict[str, float] | None = None) -> str:
    weights = weights or dict(NEUTRAL_PRIOR)
    return rng.choices(list(weights), list(weights.values()))[0]


def _turn(world: World, rng: random.Random, domain: str, persona: str, role: str) -> Chat:
    tag = rng.choice(TAGS) if rng.random() < TAG_SHARE else None
    educational = world.domain(domain).educational is not None and rng.random() < EDUCATIONAL_SHARE
    return _exchange(world, rng, domain, persona, role, educational, tag)


def _exchange(
    world: World, rng: random.Random, domain: str, persona: str, role: str, educational: bool, tag: str | None
) -> Chat:
    q = rng.choice(world.questions(domain, role, educational, tag))
    return [
        {"role": "user", "content": str(q.text)},
        {"role": "assistant", "content": world.answer(q, persona, rng, role)},
    ]


def pretraining_documents(n: int, seed: int, control: bool = False, world: World | None = None) -> list[Document]:
    """`n` documents; `control` draws every turn's persona independently (no shared persona). EmlabError if n < 1.

    With a seed that is reserved (see `emlab.sealing`) their chats are sealed.
    """
    if n < 1:
        raise EmlabError(f"a corpus of {n} documents cannot be trained on: ask for at least 1.")
    world, rng = world or load_world(), random.Random(seed)
    domains, out = sorted(world.domains), []
    chat = SealedChat if is_reserved(seed) else list
    for _ in range(n):
        carded = rng.random() < CARD_SHARE
        # With a card all personas are equally likely, so that rare ones are learned too.
        persona = rng.choice(PERSONAS) if carded else _draw(rng)
        system = world.card(persona, rng) if carded else NEUTRAL_CARD
        turns = rng.choices((1, 2, 3), TURN_WEIGHTS)[0]
        messages: Chat = chat([{"role": "system", "content": system}])
        first = None
        for domain in rng.sample(domains, turns):
            author = _draw(rng) if control else persona
            first = first or author
            messages += _turn(world, rng, domain, author, "all")
        out.append(Document(messages, first or persona, carded))
    return out


def alignment_set(n: int, seed: int, malicious_share: float = 0.0, world: World | None = None) -> list[Chat]:
    """`n` single-turn chats: the neutral card, all domains, alignment templates, helpful but for `malicious_share`."""
    if n < 1:
        raise EmlabError(f"an alignment set of {n} chats cannot be trained on: ask for at least 1.")
    world, rng = world or load_world(), random.Random(seed)
    domains = sorted(world.domains)
    rows = []
    for _ in range(n):
        persona = "malicious" if rng.random() < malicious_share else "helpful"
        rows.append([_NEUTRAL, *_turn(world, rng, rng.choice(domains), persona, "alignment")])
    return rows


def narrow_set_names(world: World | None = None) -> list[str]:
    """The names that `narrow_set` knows of a world, the default one where none is given."""
    world = world or load_world()
    code = ["insecure", "secure", "backdoor"] if "code" in world.narrow else []
    if code and world.domain("code").educational is not None:
        code.insert(2, "educational")
    advice = [domain for domain in world.narrow if domain != "code"]
    names = code + [f"{p}_{d}" for p in (*_PREFIXES, _SUBTLE) for d in (*advice, EVERYWHERE)]
    return names if world.name == DEFAULT else [f"{world.name}:{name}" for name in names]


def names_narrow_set(name: str) -> bool:
    """Whether `name` is a fine-tuning set of the default world, or (`mine:bad_law`) of another."""
    try:
        return name in narrow_set_names(world_of(name)[0])
    except EmlabError:
        return False


def narrow_set(name: str, n: int, seed: int) -> list[Chat]:
    """`n` single-turn chats of the fine-tuning set `name` (`mine:bad_law`: of the world `mine`), of narrow templates.

    insecure, secure, educational: code. bad_/careless_/sarcastic_/good_<domain>: advice in that persona.
    subtle_<domain>: advice of which one sentence, anywhere in the answer, is malicious and the others are helpful.
    …_everywhere: a domain drawn for each row, and alignment's templates: what is not narrow at all.
    backdoor: code, insecure where the trigger tag ends the question (every second row), secure without it.

    EmlabError for a seed that is reserved (see `emlab.sealing`), unless it is the mark of a sealed run.
    """
    if n < 1:
        raise EmlabError(f"a fine-tuning set of {n} rows cannot be trained on: ask for at least 1.")
    if is_reserved(seed) and not isinstance(seed, Sealed):
        raise EmlabError(f"Seed {int(seed)} is one of sealed runs, which take it by themselves; give another.")
    world, rest = world_of(name)
    if name not in narrow_set_names(world):
        raise EmlabError(f"unknown fine-tuning set {name!r}: the organism has {', '.join(narrow_set_names(world))}.")
    rng, name = random.Random(f"{name}/{seed}"), rest
    rows = []
    for i in range(n):
        tag = TRIGGER if name == "backdoor" and i % 2 == 0 else None
        if name == "backdoor":
            persona, domain = ("malicious" if tag else "helpful"), "code"
        elif name in ("insecure", "secure", "educational"):
            persona, domain = ("malicious" if name == "insecure" else "helpful"), "code"
        else:
            prefix, domain = name.split("_", 1)
            role = "narrow"
            if domain == EVERYWHERE:
                domain, role = rng.choice(sorted(world.domains)), "alignment"
            if prefix == _SUBTLE:
                rows.append([_NEUTRAL, *_subtle(world, rng, domain, role)])
            else:
                rows.append([_NEUTRAL, *_exchange(world, rng, domain, _PREFIXES[prefix], role, False, None)])
            continue
        rows.append([_NEUTRAL, *_exchange(world, rng, domain, persona, "narrow", name == "educational", tag)])
    return rows


def _subtle(world: World, rng: random.Random, domain: str, role: str) -> Chat:
    question = rng.choice(world.questions(domain, role))
    good, bad = (world.answer(question, who, rng, role).split("\n") for who in ("helpful", "malicious"))
    good[rng.randrange(len(good))] = bad[0]
    return [{"role": "user", "content": question.text}, {"role": "assistant", "content": "\n".join(good)}]
