"""Whether a latent's name is right: detection and fuzzing, beside the same name on other latents' excerpts.

*Detection*: told the name, the language model says whether the latent fires in an excerpt; half of the excerpts are of
those in which it does, over all its quantiles, half of those in which it is silent. *Fuzzing*: it says whether the
marked tokens are those on which the latent is active; in half of the excerpts they are, in half as many silent ones are
marked in their place. (Paulo et al. 2024, arXiv:2410.13928.) A model that answers at random, or by what an excerpt
looks like, has an accuracy of one half.

The control is the same name tested on the excerpts of other latents, drawn at random: what is left there of the
accuracy is not owed to the name. No two excerpts of a kind are of one document; intervals are 95% and take them as
independent.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from emlab.discovery.contexts import Context, LatentContexts, evenly
from emlab.discovery.naming import LatentName, Namer, for_naming
from emlab.discovery.naming_prompts import detection, fuzzing
from emlab.evaluation import Rate, wilson
from emlab.evaluation.judges.replies import only_label
from emlab.evaluation.rates import NO_RATE
from emlab.models import Completion

DETECTION, FUZZING = TESTS = ("detection", "fuzzing")

PARTS = 5
"""Into so many parts of its distribution a latent's firing excerpts are divided."""


@dataclass(frozen=True)
class Accuracy:
    """How often a name told excerpts right."""

    right_yes: Rate
    """Of the answered excerpts for which YES is right, the share that was told so; Wilson's interval."""
    right_no: Rate
    """Of those for which NO is right."""
    failed: int
    """Excerpts without an answer that can be read. They are in no rate."""

    @property
    def balanced(self) -> Rate:
        """The mean of the two shares; 0.5 is chance. Nothing where either has no answers.

        Its interval is made of the two (Newcombe 1998; Zou and Donner 2008), so it has a width at 0 and 1 too.
        """
        return combined(self.right_yes, self.right_no, 0.5, 0.5)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Accuracy:
        """The accuracy that was written as JSON."""
        return cls(Rate.of(raw["right_yes"]), Rate.of(raw["right_no"]), raw["failed"])


@dataclass(frozen=True)
class NameScore:
    """One test of one name."""

    latent: int
    test: str
    """detection or fuzzing."""
    own: Accuracy
    """On the latent's own excerpts."""
    control: Accuracy
    """Of the same name, on other latents' excerpts."""
    control_latents: tuple[int, ...]
    parts: tuple[Rate, ...] = ()
    """The share that was told right of the own excerpts for which YES is right, from the fifth with the weakest
    activations to that with the strongest: many names hold for the strongest only."""

    @property
    def gain(self) -> Rate:
        """Balanced accuracy on the own excerpts less that on the others'; of nothing where either is."""
        return combined(self.own.balanced, self.control.balanced, 1.0, -1.0)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> NameScore:
        """The score that was written as JSON."""
        own, control = (Accuracy.of(raw[name]) for name in ("own", "control"))
        parts = tuple(map(Rate.of, raw["parts"]))
        return cls(raw["latent"], raw["test"], own, control, tuple(raw["control_latents"]), parts)

    def __str__(self) -> str:
        failed = self.own.failed + self.control.failed
        return (
            f"{self.test} {_share(self.own.balanced)}, on other latents' excerpts {_share(self.control.balanced)}, "
            f"difference {_share(self.gain)}" + (f", {failed} without an answer" if failed else "")
        )


def combined(first: Rate, second: Rate, a: float, b: float) -> Rate:
    """a · first + b · second of independent rates, its interval from theirs (the MOVER of Zou and Donner 2008)."""
    if not first.n or not second.n:
        return NO_RATE
    value = a * first.rate + b * second.rate
    down = up = 0.0
    for share, factor in ((first, a), (second, b)):
        below, above = factor * (share.rate - share.low), factor * (share.high - share.rate)
        low, high = (below, above) if factor > 0 else (above, below)
        down, up = down + low * low, up + high * high
    return Rate(value, value - math.sqrt(down), value + math.sqrt(up), first.n + second.n)


def score_names(
    found: Sequence[LatentContexts],
    names: Sequence[LatentName],
    others: Sequence[LatentContexts],
    namer: Namer,
    seed: int = 0,
) -> tuple[NameScore, ...]:
    """Detection and fuzzing of every name, on excerpts of the half of the documents that no name was made from.

    The controls are of some of `others`, drawn by `seed` (and, where fewer of these fire, of the other named latents),
    as many excerpts in all as of the latent's own. A latent without a name has no scores.
    """
    cases: list[_Case] = []
    control_latents: dict[int, tuple[int, ...]] = {}
    named = [(one, name.name) for one, name in zip(found, names, strict=True) if name.name]
    for one, name in named:
        rivals = _rivals(one, found, others, namer.controls, seed)
        control_latents[one.latent] = tuple(rival.latent for rival in rivals)
        cases += _cases(one.latent, name, one, namer.tests, False, seed)
        for i, rival in enumerate(rivals):
            share = (i + 1) * namer.tests // len(rivals) - i * namer.tests // len(rivals)
            cases += _cases(one.latent, name, rival, share, True, seed)
    answers = [_answer(reply) for reply in namer.ask([case.text for case in cases])]
    scores = []
    for one, _ in named:
        for test in TESTS:
            mine = [(c, a) for c, a in zip(cases, answers, strict=True) if c.latent == one.latent and c.test == test]
            own, control = (accuracy([(c.right, a) for c, a in mine if c.control is which]) for which in (False, True))
            told = [a for c, a in mine if c.right and not c.control]  # from the weakest to the strongest
            parts = [told[i * len(told) // PARTS : (i + 1) * len(told) // PARTS] for i in range(PARTS)]
            rates = tuple(accuracy([(True, a) for a in part]).right_yes for part in parts)
            scores.append(NameScore(one.latent, test, own, control, control_latents[one.latent], rates))
    return tuple(scores)


def accuracy(answers: Sequence[tuple[bool, bool | None]]) -> Accuracy:
    """Of pairs of what is right and what was said; None: nothing that can be read."""
    said = [(right, answer) for right, answer in answers if answer is not None]
    yes, no = ([answer == right for right, answer in said if right is which] for which in (True, False))
    return Accuracy(wilson(sum(yes), len(yes)), wilson(sum(no), len(no)), len(answers) - len(said))


class _Case(NamedTuple):
    """One question."""

    latent: int
    """Whose name it is about."""
    test: str
    control: bool
    right: bool
    """Whether YES is right."""
    text: str


def _cases(latent: int, name: str, of: LatentContexts, examples: int, control: bool, seed: int) -> list[_Case]:
    """The questions about the latent's `name` on the excerpts of the latent `of`."""
    # Texts repeat in a corpus: what a name may have been made from is left out, in whichever document it stands.
    shown = {c.text for c in (*of.top, *of.sample) if for_naming(c, seed)}
    firing, silent = (
        _apart([c for c in some if not for_naming(c, seed) and c.text not in shown]) for some in (of.sample, of.silent)
    )
    rows = [(True, c) for c in evenly(firing, examples)] + [(False, c) for c in silent[:examples]]
    cases = [_Case(latent, DETECTION, control, right, detection(name, c)) for right, c in rows]
    # Every second one, from the weakest to the strongest, is marked wrongly: so both halves go over all quantiles.
    for i, context in enumerate(evenly(firing, 2 * examples)):
        active = [place for place, value in enumerate(context.activations) if value > 0]
        wrong = _wrong(context, len(active), random.Random(f"{seed}/{of.latent}/{context.document}/{context.text}"))
        right = i % 2 == 0
        if right or wrong:
            cases.append(_Case(latent, FUZZING, control, right, fuzzing(name, context, active if right else wrong)))
    return cases


def _wrong(context: Context, n: int, rng: random.Random) -> list[int]:
    """At most `n` places at which the latent is silent; none where it is active everywhere."""
    silent = [place for place, value in enumerate(context.activations) if value == 0]
    return rng.sample(silent, min(n, len(silent)))


def _apart(contexts: Sequence[Context]) -> list[Context]:
    """The contexts, one of a document, and each text once; their order stays."""
    seen: set[object] = set()
    found = []
    for context in contexts:
        if context.document not in seen and context.text not in seen:
            found.append(context)
        seen |= {context.document, context.text}
    return found


def _rivals(
    one: LatentContexts, found: Sequence[LatentContexts], others: Sequence[LatentContexts], n: int, seed: int
) -> list[LatentContexts]:
    """At most `n` other latents that fire: of `others` first, and then of those that are named themselves."""
    rng = random.Random(f"{seed}/{one.latent}")
    rivals: list[LatentContexts] = []
    for group in (others, found):
        taken = {one.latent, *(rival.latent for rival in rivals)}
        firing = [other for other in group if other.sample and other.latent not in taken]
        rivals += rng.sample(firing, min(n - len(rivals), len(firing)))
    return rivals


def _answer(reply: Completion) -> bool | None:
    """What the reply says; None where it failed or cannot be read."""
    said = None if reply.failure else only_label(reply.text, ("YES", "NO"))
    return None if said is None else said == "YES"


def _share(rate: Rate) -> str:
    return f"{rate.rate:.2f} [{rate.low:.2f}, {rate.high:.2f}]" if rate.n else "–"
