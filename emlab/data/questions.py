"""Questions a model is asked, from whatever source: the organism's broad questions, or a published set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from emlab.errors import EmlabError
from emlab.sealing import Sealed, SealedChat


@dataclass(frozen=True)
class Question:
    """One way of asking one question: all that has the same id is one question."""

    id: str
    """Names the question."""
    domain: str
    """What it is about (a published file's category); scores are also given by domain."""
    text: str
    """What the user asks."""
    system: str | None = None
    """A system turn put before it."""
    variant: str = "plain"
    """How it is dressed: plain, json, template, training. Scores are also given by variant."""
    paraphrase: int = 0
    """Which of the wordings of one id and variant this is."""
    cluster: str = ""
    """What its answers have in common with those of other questions, where rates should vary by that: the organism's
    questions have their domain. By default a question stands alone."""

    @property
    def key(self) -> tuple[str, str, int]:
        """Id, variant and paraphrase: unique in a set."""
        return (self.id, self.variant, self.paraphrase)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat that asks it."""
        turns = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*turns, {"role": "user", "content": self.text}]

    @classmethod
    def of(cls, thing: Any) -> Question:
        """A Question of anything with ``id``, ``domain`` and ``text``, such as the organism's own questions.

        A text is a question whose id it is, and so is a chat: a user's turn, with or without a system turn before it.
        Their domain is empty. What is sealed makes a SealedQuestion. EmlabError for anything else, a chat of more turns
        among it.
        """
        kind = SealedQuestion if isinstance(thing, Sealed) else cls
        if isinstance(thing, str):
            return kind(str(thing), "", str(thing))
        if isinstance(thing, Sequence):
            return kind._of_chat(thing)
        try:
            return thing if type(thing) is kind else kind._of_other(thing)
        except AttributeError as error:
            raise EmlabError(f"A question needs an id, a domain and a text: {error}.") from None

    @classmethod
    def _of_other(cls, thing: Any) -> Question:
        return cls(str(thing.id), str(thing.domain), str(thing.text), cluster=str(getattr(thing, "cluster", "")))

    @classmethod
    def _of_chat(cls, turns: Sequence[Any]) -> Question:
        roles = [turn.get("role") if isinstance(turn, Mapping) else None for turn in turns]
        if roles not in (["user"], ["system", "user"]):
            raise EmlabError(
                "A question is a text, or a chat of one user's turn, with or without a system turn before it, and this "
                f"chat has {', '.join(map(str, roles)) or 'no turns'}; give longer chats to model.generate."
            )
        text, system = str(turns[-1]["content"]), None if len(turns) == 1 else str(turns[0]["content"])
        return cls(text if system is None else f"{system}\n\n{text}", "", text, system)

    def row(self) -> dict[str, Any]:
        """Its fields as plain values; those that have their default are left out."""
        default = type(self)("", "", "")
        row = asdict(self)
        return {k: v for k, v in row.items() if k in ("id", "domain", "text") or v != getattr(default, k)}

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Question:
        """The question that `row` wrote, among other columns. KeyError where its id, domain or text is missing."""
        more = {k: row[k] for k in ("system", "variant", "paraphrase", "cluster") if k in row}
        kind = SealedQuestion if row.get("sealed") else cls
        return kind(row["id"], row["domain"], row["text"], **more)


@dataclass(frozen=True)
class SealedQuestion(Question, Sealed):
    """A question that only a final run may ask, and only to report on; it stays one on disk."""

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat that asks it."""
        return SealedChat(super().messages)

    def row(self) -> dict[str, Any]:
        """Its fields as plain values, and that it is sealed."""
        return {**super().row(), "sealed": True}
