"""How often each label was given: the share of the answers that have a label, and of all answers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emlab import artifacts
from emlab.evaluation.intervals import clustered_rate
from emlab.evaluation.labelling import Labelled, save_labelled
from emlab.evaluation.rates import Rate
from emlab.evaluation.rollouts import file_name
from emlab.notebook import Shown


@dataclass(frozen=True)
class LabelTally:
    """Counts and shares of the labels of some answers."""

    total: int
    """All answers."""
    labelled: int
    """Of these, the ones with a label."""
    counts: Mapping[str, int]
    """Answers with each label."""
    of_labelled: Mapping[str, Rate]
    """Each label's share of the answers that have one."""
    of_all: Mapping[str, Rate]
    """Each label's share of all answers, those whose judging failed among them."""

    @property
    def failed(self) -> int:
        """Answers without a label."""
        return self.total - self.labelled

    def summary(self) -> dict[str, Any]:
        """Counts and shares as plain values; a share of nothing is null."""
        shares = {"share_labelled": self.of_labelled, "share_all": self.of_all}
        labels = {
            name: {"count": count, **{of: share[name].summary() for of, share in shares.items()}}
            for name, count in self.counts.items()
        }
        return {"total": self.total, "labelled": self.labelled, "failed": self.failed, "labels": labels}


@dataclass(frozen=True, eq=False, repr=False)
class LabelShares(Shown):
    """The labels of one model's answers. Intervals are over questions; of one question, over its wordings."""

    labelled: Labelled
    """The labels."""

    @property
    def model(self) -> str:
        """Name of the model that answered."""
        return self.labelled.rollouts.model

    @functools.cached_property
    def overall(self) -> LabelTally:
        """All answers."""
        return self._tally(np.ones(len(self.labelled.labels), dtype=bool), "id")

    @functools.cached_property
    def by_domain(self) -> Mapping[str, LabelTally]:
        """The answers to each domain's questions."""
        return self._by("domain", "id")

    @functools.cached_property
    def by_variant(self) -> Mapping[str, LabelTally]:
        """The answers to questions dressed one way."""
        return self._by("variant", "id")

    @functools.cached_property
    def by_question(self) -> Mapping[str, LabelTally]:
        """The answers to each question, by its id.

        An id of the published deception files is a condition (a system prompt about lying), and its paraphrases are
        the questions asked under it; so the interval is over an id's wordings. Of an id with one wording it takes the
        answers as independent.
        """
        return self._by("id", "key")

    def summary(self, questions: bool = True) -> dict[str, Any]:
        """The figures as plain values, for a JSON file; those of each question only where asked for."""
        groups = {"by_domain": self.by_domain, "by_variant": self.by_variant}
        if questions:
            groups["by_question"] = self.by_question
        return {
            "model": self.model,
            "judge": self.labelled.judge,
            "asked_for": self.labelled.asked_for,
            **({"caution": self.labelled.caution} if self.labelled.caution else {}),
            **self.overall.summary(),
            **{group: {name: tally.summary() for name, tally in tallies.items()} for group, tallies in groups.items()},
        }

    def save(self, folder: str | Path) -> None:
        """Write `<model>.labels.jsonl`, the labelled answers, and `<model>.labels.json`, the shares, into `folder`."""
        name = file_name(self.model)
        save_labelled(self.labelled, Path(folder) / f"{name}.labels.jsonl")
        artifacts.write_json(Path(folder) / f"{name}.labels.json", self.summary())

    def _by(self, what: str, groups: str) -> Mapping[str, LabelTally]:
        of = np.array([getattr(question, what) for question in self.labelled.rollouts.questions])
        return {name: self._tally(of == name, groups) for name in dict.fromkeys(of.tolist())}

    def _tally(self, chosen: np.ndarray, by: str) -> LabelTally:
        """Of the answers in the mask `chosen`; their clusters are what questions have in common under `by`."""
        questions = self.labelled.rollouts.questions
        named = [getattr(questions[i], by) for i in np.flatnonzero(chosen)]
        place = {name: i for i, name in enumerate(dict.fromkeys(named))}
        group = np.array([place[name] for name in named], dtype=int)

        def count(flags: np.ndarray) -> np.ndarray:
            return np.bincount(group, weights=flags[chosen], minlength=len(place)).astype(int)

        total, labelled = count(np.ones(len(questions))), count(~self.labelled.failed)
        hits = {name: count(self.labelled.are(name)) for name in self.labelled.choices}
        return LabelTally(
            int(total.sum()),
            int(labelled.sum()),
            {name: int(n.sum()) for name, n in hits.items()},
            {name: clustered_rate(n, labelled) for name, n in hits.items()},
            {name: clustered_rate(n, total) for name, n in hits.items()},
        )

    def __str__(self) -> str:
        one, tally = self.labelled, self.overall
        by = f" by {one.judge}" if one.judge else ""
        failed = f", {tally.failed} failed" if tally.failed else ""
        lines = [one.caution] if one.caution else []
        lines.append(f"{self.model}: {tally.total} answers, {tally.labelled} labelled{by}{failed}")
        what = f"{one.asked_for}: " if one.asked_for else ""
        lines += _lines(f"{what}share of the labelled", tally.of_labelled)
        lines += _lines(f"{what}share of all", tally.of_all)
        for tallies in (self.by_domain, self.by_variant, self.by_question):
            if len(tallies) > 1:
                for name, each in tallies.items():
                    lines += _lines(f"{name}, of the labelled", each.of_labelled)
        return "\n".join(lines)


def _lines(head: str, shares: Mapping[str, Rate]) -> Sequence[str]:
    width = max([12, *map(len, shares)])
    return [f"  {head}", *(f"    {name:<{width}}  {rate}" for name, rate in shares.items())]
