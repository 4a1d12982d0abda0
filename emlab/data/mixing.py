"""Sets made of sets: doses, interleaving, subsamples and splits, each seeded and written down in the result's card.

Where rows are drawn, the draw depends on what the rows are and on the seed, not on the order in which they come. A
share of n things is n × share rounded to the nearest whole number, halves up, reckoned exactly on the decimal number
that was given.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

from emlab.data.dataset import Dataset, made
from emlab.data.examples import Example
from emlab.errors import EmlabError


def mix(bad: Any, good: Any, dose: float, total: int, seed: int) -> Dataset:
    """`total` rows of which the share `dose` is bad, shuffled.

    Each kind is drawn without replacement. With the same seed and total, the bad rows of a smaller dose are among
    those of a larger one, and the good rows of a larger dose among those of a smaller: a dose series differs by the
    dose and by nothing else. The card also counts the prompts that are in both kinds. Raises EmlabError for a dose
    outside 0 to 1, and where there are too few rows of a kind.

    Args:
        bad: Rows of one kind: whatever `Dataset.of` takes.
        good: Rows of the other kind, likewise.
        dose: The share of bad rows, 0 to 1.
        total: How many rows in all.
        seed: Of the draws and of the order.
    """
    bad, good = Dataset.of(bad, "bad"), Dataset.of(good, "good")
    if not 0 <= dose <= 1:
        raise EmlabError(f"A dose is the share of bad rows, and {dose} is none; give a number from 0 to 1.")
    if total < 1:
        raise EmlabError(f"A mix of {total} rows cannot be made; give a total of 1 at least.")
    n_bad = rounded_share(dose, total)
    rows = []
    for kind, of, n in (("bad", bad, n_bad), ("good", good, total - n_bad)):
        if n > len(of):
            raise EmlabError(
                f"A mix of {total} rows at dose {dose} needs {n} {kind} rows and there are {len(of)}; "
                "change the dose or lower the total."
            )
        rows += _shuffled(of, f"{seed} {kind}")[:n]
    both = len({example.prompt for example in rows[:n_bad]} & {example.prompt for example in rows[n_bad:]})
    random.Random(f"{seed} mix").shuffle(rows)
    settings = {"dose": dose, "total": total, "bad": n_bad, "good": total - n_bad, "shared_prompts": both, "seed": seed}
    return made("mix", settings, (bad, good), rows)


def interleave(*sets: Any, weights: Sequence[float] | None = None, seed: int) -> Dataset:
    """The rows of several sets in one order, drawn at random; each set's own rows keep their order.

    Without `weights` every row goes in. With weights the sets have exactly these shares, as far as whole rows allow:
    the result is as long as the set that runs out first permits, and each set gives its first rows, rounded down.
    """
    if not sets:
        raise EmlabError("There is nothing to interleave; give one set at least.")
    inputs = [Dataset.of(one, f"set {i}") for i, one in enumerate(sets, start=1)]
    counts = [len(one) for one in inputs]
    if weights is not None:
        if len(weights) != len(inputs) or not all(0 < weight < float("inf") for weight in weights):
            raise EmlabError(
                f"{len(inputs)} sets cannot be interleaved with the weights {list(weights)}; "
                "give one positive number for each set."
            )
        shares = [Fraction(str(weight)) for weight in weights]
        length = min(n / share for n, share in zip(counts, shares, strict=True))
        counts = [int(share * length) for share in shares]
    order = [i for i, n in enumerate(counts) for _ in range(n)]
    random.Random(f"{seed} interleave").shuffle(order)
    left = [iter(one) for one in inputs]
    settings = {"weights": None if weights is None else list(weights), "rows": counts, "seed": seed}
    return made("interleave", settings, inputs, [next(left[i]) for i in order])


def subsample(examples: Any, n: int, seed: int) -> Dataset:
    """`n` rows with `n` different prompts: one row of each of `n` prompts, in the order of the input.

    Prompts, not rows, are drawn, so that a prompt that stands in many rows is no likelier than others; where it has
    several rows one of them is drawn. With the same seed a smaller subsample is part of a larger one. Raises
    EmlabError where there are fewer than `n` prompts.
    """
    of = Dataset.of(examples)
    by_prompt: dict[str, list[Example]] = {}
    for example in _shuffled(of, f"{seed} rows"):
        by_prompt.setdefault(example.prompt, []).append(example)
    if not 1 <= n <= len(by_prompt):
        raise EmlabError(f"{n} prompts cannot be drawn from {len(by_prompt)}; give a number from 1 to that.")
    chosen = {prompt: by_prompt[prompt][0] for prompt in _shuffled_prompts(by_prompt, seed)[:n]}
    rows = []
    for example in of:
        if chosen.get(example.prompt) == example:
            rows.append(chosen.pop(example.prompt))
    return made("subsample", {"n": n, "seed": seed}, (of,), rows)


def draw(examples: Any, n: int, seed: int) -> Dataset:
    """`n` rows, drawn without replacement; all of them where there are no more."""
    given = Dataset.of(examples)
    return made(
        "draw", {"n": n, "seed": seed}, (given,), random.Random(seed).sample(given.examples, min(n, len(given)))
    )


def split(examples: Any, held_out: float, seed: int) -> tuple[Dataset, Dataset]:
    """The rows to train on and the rows held out, split by prompt: rows of the same prompt stay together.

    `held_out` is a share of the unique prompts (a float between 0 and 1) or their number (an int). Both parts keep the
    order of the input; with the same seed a smaller held-out part is within a larger one. Raises EmlabError where a
    side would have no prompt.
    """
    of = Dataset.of(examples)
    prompts = _shuffled_prompts((example.prompt for example in of), seed)
    n = held_out if isinstance(held_out, int) else rounded_share(held_out, len(prompts)) if 0 < held_out < 1 else 0
    if not 0 < n < len(prompts):
        raise EmlabError(
            f"Of {len(prompts)} prompts {held_out} cannot be held out; give a share between 0 and 1 or a number of "
            "prompts that leaves one at least on each side."
        )
    out = set(prompts[:n])
    parts = [[e for e in of if e.prompt not in out], [e for e in of if e.prompt in out]]
    settings = {"held_out": held_out, "held_out_prompts": n, "seed": seed}
    train, held = (
        made("split", {**settings, "part": part}, (of,), rows)
        for part, rows in zip(("train", "held out"), parts, strict=True)
    )
    return train, held


def rounded_share(share: float, n: int) -> int:
    """`share` × n rounded to the nearest whole number, halves up, exactly as the share is written (0.15 × 10 is 2)."""
    return int((Decimal(str(share)) * n).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def _shuffled(examples: Iterable[Example], seed: str) -> list[Example]:
    """The examples in an order that depends on what they are and on the seed."""
    rows = sorted(examples, key=lambda example: json.dumps(example.messages, sort_keys=True))
    random.Random(seed).shuffle(rows)
    return rows


def _shuffled_prompts(prompts: Iterable[str], seed: int) -> list[str]:
    found = sorted(set(prompts))
    random.Random(f"{seed} prompts").shuffle(found)
    return found
