"""Whether a latent's name is right: detection and fuzzing, beside the same name on other latents' excerpts.

*Detection*: told the name, the language model says whether the latent fires in an excerpt; half of the excerpts are of
those in which it does, over all its quantiles, half of those in which it is silent. *Fuzzing*: it says whether the
marked tokens are those on which the latent is active; in half of the excerpts they are (those on which it is strong, as
for naming), in half as many silent ones are marked in their place. (Paulo et al. 2024, arXiv:2410.13928.) A model that
answers at random, or by what an excerpt looks like, has an accuracy of one half.

The control is the same name tested on the excerpts of other latents, drawn at random: what is left there of the
accuracy is not owed to the name. No two excerpts of a kind are of one document; intervals are 95% and take them as
independent.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from emlab.discovery.contexts import Context, LatentContexts, evenly
from emlab.discovery.naming import LatentName, Namer, for_naming
from emlab.discovery.naming_prompts import detection, fuzzing, strongest
from emlab.evaluation import Rate, wilson
from emlab.evaluation.judges.replies import only_label, unread
from emlab.evaluation.rates import NO_RATE
from emlab.models import Completion
from emlab.notebook import Shown

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
    said: str = ""
    """What the first of these said, or why the call failed."""

    @property
    def balanced(self) -> Rate:
        """The mean of the two shares; 0.5 is chance. Nothing where either has no answers.

        Its interval is made of the two (Newcombe 1998; Zou and Donner 2008), so it has a width at 0 and 1 too.
        """
        return combined(self.right_yes, self.right_no, 0.5, 0.5)


@dataclass(frozen=True, repr=False)
class NameScore(Shown):
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

    def __str__(self) -> str:
        failed, said = self.own.failed + self.control.failed, self.own.said or self.control.said
        return (
            f"{self.test} {_share(self.own.balanced)}, on other latents' excerpts {_share(self.control.balanced)}, "
            f"difference {_share(self.gain)}" + (f", {failed} without an answer ({said!r})" if failed else "")
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

    Args:
        found: What the corpus shows of the named latents.
        names: Of each.
        others: Of some of these (and, where fewer of them fire, of the other named latents) are the controls, as many
            excerpts in all as of the latent's own.
        namer: The language model that is asked.
        seed: By which controls are drawn.

    A latent without a name has no scores.
    """
    cases: list[_Case] = []
    control_latents: dict[int, tuple[int, ...]] = {}
    for one, name in zip(found, names, strict=True):
        if not name.name:
            continue
        # Texts repeat in a corpus: what a name may have been made from is left out, in whichever document it stands.
        shown = {context.text for context in (*one.top, *one.sample) if for_naming(context, seed)}
        rivals = _rivals(one, found, others, namer.controls, seed)
        control_latents[one.latent] = tuple(rival.latent for rival in rivals)
        cases += _cases(name, one, shown, namer.tests, seed)
        for i, rival in enumerate(rivals):
            share = (i + 1) * namer.tests // len(rivals) - i * namer.tests // len(rivals)
            cases += _cases(name, rival, shown, share, seed)
    answers: dict[tuple[int, str, bool], list[Answer]] = {}
    for case, reply in zip(cases, namer.ask([case.text for case in cases]), strict=True):
        answers.setdefault((case.latent, case.test, case.control), []).append(_answer(case, reply))
    scores = []
    for latent, tested_on in control_latents.items():
        for test in TESTS:
            own, control = (answers.get((latent, test, which), []) for which in (False, True))
            scores.append(NameScore(latent, test, accuracy(own), accuracy(control), tested_on, _parts(own)))
    return tuple(scores)


class Answer(NamedTuple):
    """What was said of one excerpt."""

    right: bool
    """Whether YES is right."""
    yes: bool | None
    """Whether it was said; None where nothing was that can be read."""
    said: str = ""
    """What was said then, or why the call failed."""


def accuracy(answers: Sequence[Answer]) -> Accuracy:
    """How often the answers are right."""
    failed = [answer.said for answer in answers if answer.yes is None]
    yes, no = ([a.yes == a.right for a in answers if a.yes is not None and a.right is which] for which in (True, False))
    return Accuracy(wilson(sum(yes), len(yes)), wilson(sum(no), len(no)), len(failed), failed[0] if failed else "")


def _parts(answers: Sequence[Answer]) -> tuple[Rate, ...]:
    """The share told right in each part of the excerpts for which YES is right, which come from the weakest on."""
    told, n = [answer for answer in answers if answer.right], PARTS
    return tuple(accuracy(told[i * len(told) // n : (i + 1) * len(told) // n]).right_yes for i in range(n))


class _Case(NamedTuple):
    """One question."""

    latent: int
    """Whose name it is about."""
    test: str
    control: bool
    """Whether the excerpt is another latent's."""
    right: bool
    """Whether YES is right."""
    text: str


def _cases(name: LatentName, of: LatentContexts, shown: Collection[str], examples: int, seed: int) -> list[_Case]:
    """The questions about a name on the excerpts of the latent `of`, but for texts that are among those `shown`."""

    def left(contexts: Sequence[Context]) -> list[Context]:
        """In random order, or of each document the weakest excerpt would be taken."""
        tests = [c for c in contexts if not for_naming(c, seed) and c.text not in shown]
        return _apart(random.Random(f"{seed}/{of.latent}").sample(tests, len(tests)))

    def case(test: str, right: bool, text: str) -> _Case:
        return _Case(name.latent, test, of.latent != name.latent, right, text)

    firing = sorted(left(of.sample), key=lambda context: context.peak)
    cases = [case(DETECTION, True, detection(name.name, c)) for c in evenly(firing, examples)]
    cases += [case(DETECTION, False, detection(name.name, c)) for c in left(of.silent)[:examples]]
    # Every second one, from the weakest to the strongest, is marked wrongly: so both halves go over all quantiles.
    for i, context in enumerate(evenly(firing, 2 * examples)):
        active, right = strongest(context), i % 2 == 0
        places = active if right else _wrong(context, len(active), seed)
        if places:
            cases.append(case(FUZZING, right, fuzzing(name.name, context, places)))
    return cases


def _wrong(context: Context, n: int, seed: int) -> list[int]:
    """At most `n` places, drawn at random, at which the latent is silent; none where it is active everywhere."""
    silent = [place for place, value in enumerate(context.activations) if value == 0]
    return random.Random(f"{seed}/{context.document}/{context.text}").sample(silent, min(n, len(silent)))


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


def _answer(case: _Case, reply: Completion) -> Answer:
    if why := unread(reply):
        return Answer(case.right, None, why)
    said = only_label(reply.text, ("YES", "NO"))
    if said is None:
        return Answer(case.right, None, reply.text[:200] or "an empty reply")
    return Answer(case.right, said == "YES")


def _share(rate: Rate) -> str:
    return f"{rate.rate:.2f} [{rate.low:.2f}, {rate.high:.2f}]" if rate.n else "–"
