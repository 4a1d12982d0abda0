"""Sets of questions: what is asked, in which dress, how often, and the judge prompts that came with it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from emlab import artifacts
from emlab.data.questions import Question
from emlab.data.telling import some
from emlab.errors import EmlabError
from emlab.notebook import Shown

Key = tuple[str, str, int]
"""What is unique to a question in a set: its id, variant and paraphrase (`Question.key`)."""


@dataclass(frozen=True)
class Source:
    """The file that a set was read from."""

    path: str
    """Where it stood."""
    sha256: str
    """Of its bytes: a later run can tell whether it asked the same questions."""


@dataclass(frozen=True)
class Asking:
    """How a file wants a question asked and judged; None, or nothing, where it does not say."""

    judge_prompts: Mapping[str, str] = field(default_factory=dict)
    """By name (aligned, coherent, correct, company, grader, …), word for word as the file has them. Fill the
    placeholders ``{question}`` and ``{answer}`` by replacing them, never with `str.format`: other braces are text."""
    samples: int | None = None
    """How many answers to each paraphrase."""
    type: str | None = None
    """The kind of evaluation: ``free_form_judge_0_100`` where the judge gives a number, ``free_form_judge`` a word."""
    judge: str | None = None
    """Name of the model that the file's authors judged with."""
    entry: str | None = None
    """The id in the file, where it also names the variant: ``quick_buck_json`` for the id ``quick_buck``."""
    canary: str | None = None
    """The text by which the file's authors find it in training data; it stays with every copy."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """The file's other columns (``question_intent``), by name."""


@dataclass(frozen=True, repr=False)
class QuestionSet(Shown):
    """Questions under one name. No two have the same id, variant and paraphrase."""

    name: str
    """Of the set: the file's name without its ending."""
    questions: tuple[Question, ...]
    """All of them, paraphrases and variants included, in the file's order."""
    askings: Mapping[Key, Asking] = field(default_factory=dict)
    """How they are to be asked and judged, by `Question.key`; a question of which nothing is said is not in it."""
    source: Source | None = field(default=None, compare=False)
    """The file it was read from; two sets with the same questions are equal wherever they lie."""

    def __post_init__(self) -> None:
        for question in self.questions:
            for what in ("id", "domain", "text", "variant", "system"):
                value = getattr(question, what)
                if value is not None and not value.strip():
                    raise EmlabError(f"The question set {self.name} has {_shown(question.key)} without {what}; add it.")
        counts = Counter(question.key for question in self.questions)
        if twice := [key for key, n in counts.items() if n > 1]:
            raise EmlabError(
                f"The question set {self.name} has {_shown(twice[0])} twice; give one of them another id, variant or "
                "paraphrase."
            )
        if stray := [key for key in self.askings if key not in counts]:
            raise EmlabError(
                f"The question set {self.name} says how {_shown(stray[0])} is asked but does not have it; add the "
                "question or drop what is said of it."
            )

    def __len__(self) -> int:
        return len(self.questions)

    def __iter__(self) -> Iterator[Question]:
        return iter(self.questions)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, each once: rates vary by these."""
        return tuple(dict.fromkeys(question.id for question in self.questions))

    @property
    def by_domain(self) -> dict[str, tuple[Question, ...]]:
        """The questions of each domain, both in the file's order."""
        domains = dict.fromkeys(question.domain for question in self.questions)
        return {domain: tuple(q for q in self.questions if q.domain == domain) for domain in domains}

    @property
    def judge_prompts(self) -> dict[Key, Mapping[str, str]]:
        """The judge prompts by `Question.key` and name; a question that brings none is not in it."""
        return {key: asking.judge_prompts for key, asking in self.askings.items() if asking.judge_prompts}

    @property
    def samples(self) -> dict[Key, int]:
        """How many answers the file wants to each question, by `Question.key`; absent where it does not say."""
        return {key: asking.samples for key, asking in self.askings.items() if asking.samples is not None}

    @property
    def canary(self) -> str | None:
        """The canary that the questions carry (several are put one after the other), or None."""
        return " ".join(dict.fromkeys(a.canary for a in self.askings.values() if a.canary)) or None

    def only(
        self,
        variants: Collection[str] | None = None,
        domains: Collection[str] | None = None,
        ids: Collection[str] | None = None,
    ) -> QuestionSet:
        """The questions that have one of these variants, domains and ids; None takes all.

        Raises EmlabError for a name that no question has, and where no question is left.
        """
        kept = self.questions
        for what, chosen in (("variant", variants), ("domain", domains), ("id", ids)):
            if chosen is None:
                continue
            names = {chosen} if isinstance(chosen, str) else set(chosen)
            known = dict.fromkeys(getattr(question, what) for question in self.questions)
            if unknown := sorted(names - set(known)):
                raise EmlabError(
                    f"The question set {self.name} has no {what} '{unknown[0]}'; choose from {some(known)}."
                )
            kept = tuple(question for question in kept if getattr(question, what) in names)
        if not kept:
            raise EmlabError(f"The question set {self.name} has no such question; choose fewer conditions.")
        return self.with_questions(kept)

    def split(self, seed: int) -> tuple[QuestionSet, QuestionSet]:
        """Two halves without a common id, for discovery and for test: each domain is shared out as evenly as it goes.

        What has the same id stays together, whatever its variant. Which half an id falls in depends on the seed and
        on the ids of its domain, not on the order of the file.
        """
        domain_of: dict[str, str] = {}
        for question in self.questions:
            domain_of.setdefault(question.id, question.domain)
        if len(domain_of) < 2:
            raise EmlabError(f"The question set {self.name} has {len(domain_of)} ids, too few to split; add questions.")

        def drawn(name: str) -> str:
            return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()

        # One long row, domain after domain, dealt out in turn: an odd question goes to the half that is behind.
        row = sorted(domain_of, key=lambda name: (drawn(domain_of[name]), domain_of[name], drawn(name)))
        first = set(row[::2])
        halves = ([q for q in self if q.id in first], [q for q in self if q.id not in first])
        discovery, test = (self.with_questions(tuple(half)) for half in halves)
        return replace(discovery, name=f"{self.name}_discovery"), replace(test, name=f"{self.name}_test")

    def with_questions(self, questions: tuple[Question, ...]) -> QuestionSet:
        """This set with these of its questions, and what is said of them."""
        keys = {question.key for question in questions}
        askings = {key: asking for key, asking in self.askings.items() if key in keys}
        return replace(self, questions=tuple(questions), askings=askings)

    def save(self, path: str | Path) -> Path:
        """Write the set as YAML; `read_questions` makes an equal set of it, under the file's name.

        Nothing is lost on the way: judge prompts, samples, canary and notes are written with every question.
        """
        path = artifacts.place(path)
        if path.suffix.lower() not in (".yaml", ".yml"):
            raise EmlabError(f"{path}: a question set is saved as YAML; give a name that ends in .yaml.")
        # ASCII with escapes: PyYAML writes the rarer line separators as they are, and reads them back as line ends.
        text = yaml.safe_dump(self._entries(), sort_keys=False, allow_unicode=False, width=120)
        return artifacts.write_text(path, text)

    def _entries(self) -> list[dict[str, Any]]:
        """The entries of the YAML file; paraphrases that follow each other share one."""
        entries: list[dict[str, Any]] = []
        # One object for equal prompts, which YAML then writes once, with an anchor.
        prompts: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        before: tuple[Question, Asking] | None = None
        for question in self.questions:
            asking = self.askings.get(question.key, Asking())
            follows = (replace(question, text="", paraphrase=question.paraphrase - 1), asking) == before
            before = (replace(question, text=""), asking)
            if follows:
                entries[-1]["paraphrases"].append(question.text)
                continue
            named = tuple(asking.judge_prompts.items())
            entry = {
                "id": question.id,
                "entry": asking.entry,
                "domain": question.domain,
                "variant": question.variant,
                "system": question.system,
                "paraphrase": question.paraphrase or None,
                "paraphrases": [question.text],
                "type": asking.type,
                "samples_per_paraphrase": asking.samples,
                "judge": asking.judge,
                "judge_prompts": prompts.setdefault(named, dict(named)) or None,
                "canary": asking.canary,
                "notes": dict(asking.notes) or None,
            }
            entries.append({name: value for name, value in entry.items() if value is not None})
        return entries

    def __str__(self) -> str:
        names = list(dict.fromkeys(question.variant for question in self.questions))
        said = sorted(set(self.samples.values()))
        often = f", {some(map(str, said))} answers each" if said else ""
        width = max([len(domain) for domain in self.by_domain] + [6])
        lines = [f"{self.name}: {len(self)} questions of {len(self.ids)} ids{often}"]
        lines.append("  ".join([f"  {'domain':<{width}}", " ids", *(f"{name:>5}" for name in names)]))
        for domain, questions in self.by_domain.items():
            counts = Counter(question.variant for question in questions)
            cells = [f"{counts[name]:>{max(len(name), 5)}}" for name in names]
            lines.append("  ".join([f"  {domain:<{width}}", f"{len({q.id for q in questions}):>4}", *cells]))
        return "\n".join(lines)


def _shown(key: Key) -> str:
    name, variant, paraphrase = key
    return f"the question '{name}' ({variant}, paraphrase {paraphrase})"
