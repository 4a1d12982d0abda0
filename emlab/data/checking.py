"""What is in a set of examples: roles, duplicates, lengths, and what it shares with another set.

A prompt is the text of a chat's first user turn, an answer that of its last assistant turn (`Example.prompt`,
`Example.answer`); two are the same where they are equal character by character, spaces and newlines included.
"""

from __future__ import annotations

import html
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emlab import artifacts
from emlab.data.chat import IGNORE, check_begin
from emlab.data.dataset import Dataset
from emlab.data.examples import Example, trained_rows
from emlab.data.no_think import without_marks, writes_thoughts
from emlab.errors import EmlabError
from emlab.notebook import Shown

LIMITS = (512, 1024, 2048, 4096)
"""The lengths in tokens that `Lengths.over` counts against, common choices of `max_length`."""


@dataclass(frozen=True)
class Lengths:
    """How long the chats are in tokens."""

    shortest: int
    median: float
    mean: float
    p95: int
    """The smallest length that at least 95% of the chats do not exceed."""
    longest: int
    over: Mapping[int, int]
    """For each of `LIMITS`, how many chats are longer."""

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Lengths:
        """The figures of one length a chat; there must be one at least."""
        ordered = sorted(lengths)
        return cls(
            shortest=ordered[0],
            median=statistics.median(ordered),
            mean=statistics.fmean(ordered),
            p95=ordered[math.ceil(0.95 * len(ordered)) - 1],
            longest=ordered[-1],
            over={limit: sum(length > limit for length in ordered) for limit in LIMITS},
        )

    def __str__(self) -> str:
        return (
            f"{self.shortest:,} to {self.longest:,}, median {self.median:,g}, mean {self.mean:,.1f}, "
            f"95% up to {self.p95:,}"
        )


@dataclass(frozen=True)
class Overlap:
    """What two sets share."""

    rows: int
    """Rows of the other set."""
    prompts: int
    """Unique prompts that are in both."""
    rows_here: int
    """Rows of this set with such a prompt."""
    rows_there: int
    """Rows of the other set with such a prompt."""
    answers: int
    """Unique answers that are in both."""
    chats: int
    """Unique whole chats that are in both."""


@dataclass(frozen=True, repr=False)
class DataCheck(Shown):
    """What is in a set of examples."""

    rows: int
    """Examples, each of them one chat."""
    roles: Mapping[str, int]
    """Turns by role."""
    patterns: Mapping[str, int]
    """Chats by the order of their roles, for example "system user assistant"; the commonest first."""
    system_rows: int
    """Chats with a system turn."""
    system_prompts: int
    """Unique texts of system turns."""
    unique_prompts: int
    duplicate_prompts: int
    """Rows whose prompt stands in an earlier row: rows less unique prompts."""
    unique_answers: int
    duplicate_answers: int
    """Rows whose answer stands in an earlier row."""
    duplicate_chats: int
    """Rows all of whose turns are those of an earlier row."""
    blank_turns: int
    """Chats with a user or system turn that is empty, or nothing but space."""
    wordless_answers: int
    """Chats whose answer has no letter and no digit."""
    untrained_turns: int
    """Turns of the assistant that are marked as not trained on."""
    switches: int
    """User turns that end in `` /no_think``."""
    empty_thoughts: int
    """Answers that begin with an empty block of thoughts."""
    tokens: Lengths | None
    """Lengths of the whole chats, where a tokenizer was given."""
    trained_tokens: Lengths | None
    """How many tokens of each chat are trained on, where a tokenizer was given."""
    split_chats: int
    """Chats that the template makes several rows of (`tokenize_turns`), where a tokenizer was given."""
    against: Overlap | None
    """What is shared with the other set, where one was given."""

    def summary(self) -> dict[str, Any]:
        """The figures as plain values, for a JSON file; those that were not asked for are null."""
        return artifacts.plain(self)

    def _table(self) -> list[tuple[str, str]]:
        rows = [
            ("rows", f"{self.rows:,}"),
            ("turns", ", ".join(f"{role} {n:,}" for role, n in self.roles.items())),
            *((f"  {pattern}", f"{n:,} rows") for pattern, n in list(self.patterns.items())[:8]),
        ]
        if len(self.patterns) > 8:
            rows.append(("  other orders of turns", f"{len(self.patterns) - 8:,}"))
        rows += [
            ("system turns", f"{self.system_rows:,} rows, {self.system_prompts:,} different"),
            ("unique prompts", f"{self.unique_prompts:,} ({self.duplicate_prompts:,} rows repeat one)"),
            ("unique answers", f"{self.unique_answers:,} ({self.duplicate_answers:,} rows repeat one)"),
            ("rows that repeat a whole chat", f"{self.duplicate_chats:,}"),
            ("rows with a blank turn", f"{self.blank_turns:,}"),
            ("answers without letter or digit", f"{self.wordless_answers:,}"),
        ]
        if self.untrained_turns:
            rows.append(("assistant turns not trained on", f"{self.untrained_turns:,}"))
        if self.switches or self.empty_thoughts:
            rows.append(("' /no_think' after questions", f"{self.switches:,}"))
            rows.append(("empty thoughts before answers", f"{self.empty_thoughts:,}"))
        for name, lengths in (("tokens of a chat", self.tokens), ("tokens trained on", self.trained_tokens)):
            if lengths is not None:
                rows.append((name, str(lengths)))
        if self.tokens is not None:
            over = ", ".join(f"{limit:,}: {n:,}" for limit, n in self.tokens.over.items())
            rows.append(("rows with more tokens than", over))
        if self.split_chats:
            rows.append(("chats made one row for each answer", f"{self.split_chats:,}"))
        if self.against is not None:
            other = self.against
            affected = f"in {other.rows_here:,} rows here and {other.rows_there:,} of the other's {other.rows:,}"
            rows.append(("prompts shared with the other", f"{other.prompts:,}, {affected}"))
            rows.append(("answers shared with the other", f"{other.answers:,}"))
            rows.append(("whole chats shared with the other", f"{other.chats:,}"))
        return rows

    def __str__(self) -> str:
        table = self._table()
        width = max(len(name) for name, _ in table)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in table)

    def _repr_html_(self) -> str:
        cells = (
            f"<tr><td style='text-align:left;white-space:pre'>{html.escape(name)}</td>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._table()
        )
        return f"<table>{''.join(cells)}</table>"


def check_data(examples: Iterable[Any], tokenizer: Any = None, against: Iterable[Any] | None = None) -> DataCheck:
    """Count what is in `examples`: whatever `Dataset.of` takes.

    `tokenizer`, a Hugging Face tokenizer with a chat template, adds the lengths in tokens; `against`, another set,
    what the two share. Raises EmlabError where there are no examples, and, naming the row, where a chat cannot be
    trained on: by itself, or with the tokenizer by its chat template.
    """
    chats = Dataset.of(examples).examples
    if not chats:
        raise EmlabError("There are no examples to check; give one at least.")
    for chat in chats:
        try:
            check_begin(chat.messages)
        except EmlabError as error:
            raise EmlabError(f"{chat.where}: {error}") from error
    bare = [without_marks(chat.messages) for chat in chats]
    prompts, answers = {chat.prompt for chat in chats}, {chat.answer for chat in chats}
    systems = [turn["content"] for chat in chats for turn in chat.messages if turn["role"] == "system"]
    whole, trained, split = _lengths(chats, tokenizer) if tokenizer is not None else (None, None, 0)
    return DataCheck(
        rows=len(chats),
        roles=dict(Counter(turn["role"] for chat in chats for turn in chat.messages).most_common()),
        patterns=dict(Counter(" ".join(turn["role"] for turn in chat.messages) for chat in chats).most_common()),
        system_rows=sum(any(turn["role"] == "system" for turn in chat.messages) for chat in chats),
        system_prompts=len(set(systems)),
        unique_prompts=len(prompts),
        duplicate_prompts=len(chats) - len(prompts),
        unique_answers=len(answers),
        duplicate_answers=len(chats) - len(answers),
        duplicate_chats=len(chats) - len(_whole(chats)),
        blank_turns=sum(any(not turn["content"].strip() for turn in chat.messages) for chat in chats),
        wordless_answers=sum(not any(map(str.isalnum, chat.answer)) for chat in chats),
        untrained_turns=sum("weight" in turn for chat in chats for turn in chat.messages),
        switches=sum(one.switches for one in bare),
        empty_thoughts=sum(one.blocks for one in bare),
        tokens=whole,
        trained_tokens=trained,
        split_chats=split,
        against=None if against is None else _overlap(chats, Dataset.of(against).examples),
    )


def _lengths(chats: Sequence[Example], tokenizer: Any) -> tuple[Lengths, Lengths, int]:
    whole, trained, split = [], [], 0
    strip = not writes_thoughts(tokenizer)
    for chat in chats:
        _, rows = trained_rows(tokenizer, chat, strip)
        whole.append(max(len(row.input_ids) for row in rows))
        trained.append(sum(label != IGNORE for row in rows for label in row.labels))
        split += len(rows) > 1
    return Lengths.of(whole), Lengths.of(trained), split


def _overlap(here: Sequence[Example], there: Sequence[Example]) -> Overlap:
    prompts = {chat.prompt for chat in here} & {chat.prompt for chat in there}
    return Overlap(
        rows=len(there),
        prompts=len(prompts),
        rows_here=sum(chat.prompt in prompts for chat in here),
        rows_there=sum(chat.prompt in prompts for chat in there),
        answers=len({chat.answer for chat in here} & {chat.answer for chat in there}),
        chats=len(_whole(here) & _whole(there)),
    )


def _whole(chats: Iterable[Example]) -> set[tuple[tuple[str, str], ...]]:
    return {tuple((turn["role"], turn["content"]) for turn in chat.messages) for chat in chats}
