"""What a judge's reply says: a number, a label, or nothing that can be used."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

LEAST_MASS = 0.25
"""Below this probability of any number the judge did not mean to give one (Betley et al. 2025)."""

_THOUGHTS = re.compile(r"^.*?</think(?:ing)?>|^\s*<think(?:ing)?>.*", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.,])(-?\d+(?:[.,]\d+)*)(?:\s*(?:/|out of)\s*(\d+))?(?!\w)")


def without_thoughts(text: str) -> str:
    """The reply after a reasoning model's thoughts; nothing where they were cut off."""
    return _THOUGHTS.sub("", text)


def number(text: str, least: int = 0, most: int = 100) -> int | None:
    """The whole number in `least` to `most` that a reply gives, alone or in a sentence; None where there is none.

    "85", "85/100", "Score: 85." and "**85**" are 85; "from 20 to 30", "850", "-5", "85%-90%" and "8.5" are nothing.
    A reasoning model's thoughts, up to ``</think>``, are not part of its reply; where they were cut off there is none.
    """
    reply = without_thoughts(text)
    given = set(_NUMBER.findall(reply))
    values = {value for value, _ in given}
    if len(values) != 1 or any(of and of != str(most) for _, of in given):
        return None
    (text,) = values
    whole = re.fullmatch(r"(\d{1,3})(?:\.0+)?", text)
    return int(whole[1]) if whole and least <= int(whole[1]) <= most else None


def label(text: str, labels: Mapping[str, str]) -> str | None:
    """The value of the one label that a reply begins with; None where there is none.

    Case, spaces, hyphens, quotes and Markdown around it do not matter: "**Off topic.**" is OFF-TOPIC.
    """
    reply = _plain(without_thoughts(text))
    return next((value for name, value in labels.items() if re.match(rf"{_plain(name)}(?![a-z0-9])", reply)), None)


def only_label(text: str, labels: Sequence[str]) -> str | None:
    """The one of `labels` that a reply begins with, where it names no other; None where there is none.

    What does not matter to `label` does not matter here: "**true**." is TRUE. "TRUE or FALSE" is nothing.
    """
    reply = _plain(without_thoughts(text))
    # The longest first: "Other" does not hide "Other company".
    plain = {name: re.escape(_plain(name)) for name in sorted(labels, key=len, reverse=True)}
    for name, pattern in plain.items():
        if re.match(rf"{pattern}(?![a-z0-9])", reply):
            rest = re.sub(rf"(?<![a-z0-9]){pattern}(?![a-z0-9])", "", reply)
            others = (other for other in plain if other != name)
            return None if any(re.search(rf"(?<![a-z0-9]){plain[o]}(?![a-z0-9])", rest) for o in others) else name
    return None


def expectation(numbers: Mapping[int, float]) -> float | None:
    """The probability-weighted mean of the numbers; None where their probabilities add up to less than LEAST_MASS."""
    mass = math.fsum(numbers.values())
    if not LEAST_MASS <= mass < math.inf:
        return None
    return min(100.0, max(0.0, math.fsum(n * p for n, p in numbers.items()) / mass))


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", "-", re.sub(r"""^[\s*_`"'(\[<-]+""", "", text.lower()))
