"""Questions a model is asked, from whatever source: the organism's broad questions, or a published set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emlab.errors import EmlabError


@dataclass(frozen=True)
class Question:
    """One question. Rates are resampled over questions, so every question needs an id of its own."""

    id: str
    """Unique in its set."""
    domain: str
    """What it is about; scores are also given by domain."""
    text: str
    """What the user asks."""

    @classmethod
    def of(cls, thing: Any) -> Question:
        """A Question of anything with ``id``, ``domain`` and ``text``, such as the organism's own questions."""
        try:
            return thing if type(thing) is cls else cls(str(thing.id), str(thing.domain), str(thing.text))
        except AttributeError as error:
            raise EmlabError(f"A question needs an id, a domain and a text: {error}.") from None
