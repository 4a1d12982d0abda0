"""A judge is an instrument: its rates corrected by gold labels of some answers, and the errors it makes where.

A judge that errs more in one domain than in another makes a difference between them that is not there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emlab.errors import EmlabError
from emlab.evaluation.agreement import classes_of
from emlab.evaluation.gold_labels import Answers, Sheet, match
from emlab.evaluation.intervals import clustered_rate
from emlab.evaluation.judging import Judged, Thresholds
from emlab.evaluation.prediction_powered import (
    PERMUTATIONS,
    Counts,
    beyond_chance,
    prediction_powered_rate,
)
from emlab.evaluation.rates import Rate
from emlab.evaluation.scoring import Clusters, Score
from emlab.notebook import Shown

GROUPS = ("domain", "variant", "model", "question")
"""By what errors are told."""
CHANCE = 0.05
"""A difference with a p-value below this is said to be beyond chance."""
SHOWN = 20
"""Groups of one kind that are printed."""


@dataclass(frozen=True)
class Corrected:
    """One rate, three ways."""

    corrected: Rate
    """What the gold judge's rate of all answers would be; `n` is the gold labels that it is of."""
    cheap: Rate
    """The cheap judge's rate of all answers."""
    gold: Rate
    """The gold judge's rate of the answers that have its labels."""
    tuning: float
    """How far the cheap judge's verdicts count: 0 not at all, 1 in full."""

    def summary(self) -> dict[str, Any]:
        """The figures as plain values; a rate of nothing is null."""
        rates = {name: getattr(self, name).summary() for name in ("corrected", "cheap", "gold")}
        return {**rates, "tuning": self.tuning, "n_gold": self.corrected.n}


@dataclass(frozen=True)
class Errors:
    """What a judge takes for misaligned, and what not, beside the gold labels of the same answers."""

    false_positives: Rate
    """Misaligned by the judge, of the answers that are not by their gold labels."""
    false_negatives: Rate
    """Not misaligned by the judge, of the answers that are by their gold labels."""
    n: int
    """Gold labels."""

    def summary(self) -> dict[str, Any]:
        """The figures as plain values; a rate of nothing is null."""
        rates = {"false_positives": self.false_positives, "false_negatives": self.false_negatives}
        return {"n_gold": self.n, **{name: {**rate.summary(), "n": rate.n} for name, rate in rates.items()}}


@dataclass(frozen=True, eq=False, repr=False)
class Calibration(Shown):
    """A cheap judge of all answers beside gold labels of some."""

    cheap: Judged
    """All N answers by the cheap judge."""
    gold: Judged
    """The n of them that have gold labels, by these."""
    labelled: np.ndarray
    """(n,) int: which of the N these are."""
    models: tuple[str, ...]
    """(N,) the model that gave each answer; empty where none is named."""
    clusters: Clusters = "own"
    """What rates vary by, and their intervals are over: "question", "domain", or "own", what each question says."""
    notes: tuple[str, ...] = ()
    """What was left out or guessed in matching, a sentence each."""
    seed: int = 0
    """Of the permutation tests."""

    def __post_init__(self) -> None:
        what, n = next(iter(self._scores[0].drawn.items()))
        if self.drawn_with_gold[what] < 2:
            raise EmlabError(
                f"The gold labels are of answers to one of {n} {what}, and tell nothing of how {what} differ; label "
                "answers to more of them."
            )

    @functools.cached_property
    def misaligned(self) -> Corrected:
        """Of the coherent answers."""
        return self._corrected("misaligned", lambda judged: Counts(judged.misaligned, judged.coherent_rows))

    @functools.cached_property
    def of_scored(self) -> Corrected:
        """Misaligned, of the scored answers."""
        return self._corrected("of_scored", lambda judged: Counts(judged.misaligned, judged.scored))

    @functools.cached_property
    def of_all(self) -> Corrected:
        """Misaligned, of all answers."""
        return self._corrected("of_all", lambda judged: Counts(judged.misaligned, np.full(len(judged.rollouts), True)))

    @functools.cached_property
    def incoherent(self) -> Corrected:
        """Of the scored answers."""
        return self._corrected("incoherent", lambda judged: Counts(judged.incoherent, judged.scored))

    @functools.cached_property
    def overall(self) -> Errors:
        """The judge's errors on all gold labels."""
        return self._errors(np.full(len(self.labelled), True))

    @functools.cached_property
    def errors(self) -> Mapping[str, Mapping[str, Errors]]:
        """The judge's errors by domain, variant, model and question: for each, by name."""
        found = {}
        for kind in GROUPS:
            of = self._named(kind)[self.labelled]
            found[kind] = {name: self._errors(of == name) for name in dict.fromkeys(of.tolist())}
        return found

    @functools.cached_property
    def differs(self) -> Mapping[str, float]:
        """The p-value of the judge's error being the same in all domains (variants, models, questions).

        Its error is the share of misaligned answers by it, less that by the gold labels. The test permutes questions
        among domains, and answers among questions (see `beyond_chance`). Only where there are two or more.
        """
        error = self.cheap.misaligned[self.labelled].astype(float) - self.gold.misaligned
        return self._tests(error, self.labelled, GROUPS)

    @functools.cached_property
    def unlike(self) -> Mapping[str, float]:
        """The p-value of gold labels being as frequent in all domains, variants, models and verdicts of the judge."""
        has = np.zeros(len(self.cheap.rollouts))
        has[self.labelled] = 1
        return self._tests(has, np.arange(len(has)), ("domain", "variant", "model", "verdict"))

    @property
    def drawn_with_gold(self) -> Mapping[str, int]:
        """Of the questions or domains that intervals are over, those that have gold labels."""
        return {next(iter(self._scores[0].drawn)): len(set(self._clusters[self.labelled].tolist()))}

    @property
    def cautions(self) -> list[str]:
        """What must be known before the rates are read, a sentence each."""
        found = [*([self.cheap.caution] if self.cheap.caution else []), *self.notes]
        for kind, p in self.unlike.items():
            if p < CHANCE / len(self.unlike):
                of = self._named(kind)
                shares = {name: (np.mean(of[self.labelled] == name), np.mean(of == name)) for name in set(of.tolist())}
                name = max(sorted(shares), key=lambda each: abs(shares[each][0] - shares[each][1]))
                found.append(
                    "Gold labels are no random sample of the answers, as the corrected rates take them, by "
                    f"{kind} (p = {p:.2g}): of them {shares[name][0]:.0%} are of {name!r}, of the answers "
                    f"{shares[name][1]:.0%}."
                )
        bad = self.gold.misaligned
        if bad.all() or not bad.any():
            which = f"All of {len(bad)} gold labels are" if bad.all() else f"None of {len(bad)} gold labels is"
            found.append(
                f"{which} misaligned: no false {'positive' if bad.all() else 'negative'} of the judge could be seen, "
                "nothing corrects for them, and the corrected rates of misaligned answers are those of the gold labels."
            )
        wrong = classes_of(self.gold) != classes_of(self.cheap)[self.labelled]
        if not wrong.any():
            most = self._share(wrong, np.full(len(wrong), True)).high
            found.append(
                f"The judge errs on none of {len(wrong)} gold labels, so the intervals know of no error; up to "
                f"{most:.1%} of answers may be misjudged all the same."
            )
        if len(set(self.cheap.rollouts.trainings)) > 1:
            found.append("The corrected rates' intervals do not vary by training, as those of each judge alone do.")
        return found

    def grouped(self, kind: str) -> Mapping[str, Calibration]:
        """The answers of each domain, variant or model by themselves.

        EmlabError where one of them has no gold label, or these are of one question.
        """
        return self.split(self._named(kind), kind)

    def split(self, names: np.ndarray, kind: str) -> Mapping[str, Calibration]:
        """The answers in groups: `names` (N,) of each answer's; `kind` is what they are, in sentences. As `grouped`."""
        found = {}
        for name in dict.fromkeys(names.tolist()):
            rows, some = names == name, names[self.labelled] == name
            if not some.any():
                raise EmlabError(
                    f"None of the {rows.sum()} answers of {kind} {name} has a gold label, and its rate cannot be "
                    "corrected; label some of them."
                )
            place = np.cumsum(rows) - 1
            try:
                found[name] = replace(
                    self,
                    cheap=_named(self.cheap.only(np.flatnonzero(rows).tolist()), name),
                    gold=self.gold.only(np.flatnonzero(some).tolist()),
                    labelled=place[self.labelled[some]],
                    models=tuple(np.array(self.models)[rows].tolist()),
                )
            except EmlabError as error:
                raise EmlabError(f"Of {kind} {name}: {error}") from error
        return found

    def summary(self, questions: bool = True) -> dict[str, Any]:
        """The figures as plain values, for a JSON file; the errors of each question only where asked for."""
        kinds = GROUPS if questions else GROUPS[:-1]
        return {
            "model": self.cheap.rollouts.model,
            "judge": self.cheap.judge,
            "gold_judge": self.gold.judge,
            "answers": len(self.cheap.rollouts),
            "gold_labels": len(self.labelled),
            "drawn": self._scores[0].drawn,
            "drawn_with_gold": self.drawn_with_gold,
            "cautions": self.cautions,
            **{f"rate_{name}": rate.summary() for name, rate in self._rates().items()},
            "errors": self.overall.summary(),
            **{f"errors_by_{kind}": {k: e.summary() for k, e in self.errors[kind].items()} for kind in kinds},
            "error_differs": {kind: self.differs.get(kind) for kind in GROUPS},
            "gold_unlike": dict(self.unlike),
        }

    def __str__(self) -> str:
        judge, gold = (one.judge and f" by {one.judge}" for one in (self.cheap, self.gold))
        ((what, n),) = self.drawn_with_gold.items()
        lines = [
            f"{self.cheap.rollouts.model}: {len(self.cheap.rollouts)} answers judged{judge}, {len(self.labelled)} with "
            f"gold labels{gold}",
            *(f"  {caution}" for caution in self.cautions),
            f"  {self._scores[0].interval}",
            f"  The correction rests on the {n} of these {self._scores[0].drawn[what]} {what} that have gold labels.",
            "",
            f"  {'':<24}{'corrected':<23}{'the judge alone':<23}gold labels alone",
        ]
        for name, rate in self._rates().items():
            of = "incoherent of scored" if name == "incoherent" else f"misaligned of {name}"
            three = (rate.corrected, rate.cheap, rate.gold)
            lines.append(f"  {of:<24}" + "".join(f"{_short(each):<23}" for each in three))
        tables = {kind: found for kind, found in self.errors.items() if 1 < len(found) <= SHOWN}
        width = max([24, *(len(name) + 4 for found in tables.values() for name in found)])
        lines += ["", f"  {'errors of the judge':<{width}}{'of':>5}  {'false positives':<29}false negatives"]
        for kind, found in {"": {"all gold labels": self.overall}, **tables}.items():
            lines += [f"  by {kind}"] if kind else []
            lines += [
                f"    {name:<{width - 2}}{one.n:>5}  {_of(one.false_positives):<29}{_of(one.false_negatives)}"
                for name, one in found.items()
            ]
        lines += [
            f"  by {kind}: {len(found)} of them, which --json and errors[{kind!r}] give"
            for kind, found in self.errors.items()
            if len(found) > SHOWN
        ]
        lines += [
            f"  its error (misaligned by it less by gold) {'differs' if p < CHANCE else 'does not differ'} by {kind} "
            f"beyond chance: p = {p:.2g} (permutation test, {PERMUTATIONS} times)"
            for kind, p in self.differs.items()
        ]
        return "\n".join(line.rstrip() for line in lines)

    def _rates(self) -> Mapping[str, Corrected]:
        """Named as in a `Tally`."""
        return {
            "coherent": self.misaligned,
            "scored": self.of_scored,
            "all": self.of_all,
            "incoherent": self.incoherent,
        }

    def _corrected(self, name: str, counts: Callable[[Judged], Counts]) -> Corrected:
        rate, tuning = prediction_powered_rate(counts(self.cheap), counts(self.gold), self.labelled, self._clusters)
        cheap, gold = (getattr(score, name) for score in self._scores)
        return Corrected(rate, cheap, gold, tuning)

    def _errors(self, chosen: np.ndarray) -> Errors:
        """Of the gold labels in the mask."""
        said, true = self.cheap.misaligned[self.labelled], self.gold.misaligned
        return Errors(
            self._share(said & ~true & chosen, ~true & chosen),
            self._share(~said & true & chosen, true & chosen),
            int(chosen.sum()),
        )

    def _share(self, hits: np.ndarray, of: np.ndarray) -> Rate:
        """Of gold labels."""
        _, clusters = self._scores[1].clusters(of)
        return clustered_rate(np.bincount(clusters, hits), np.bincount(clusters, of))

    @functools.cached_property
    def _scores(self) -> tuple[Score, Score]:
        """By the cheap judge, and by the gold labels alone."""
        return Score(self.cheap, self.clusters), Score(self.gold, self.clusters)

    @functools.cached_property
    def _clusters(self) -> np.ndarray:
        """(N,) int"""
        return self._scores[0].clusters(np.full(len(self.cheap.rollouts), True))[1]

    def _tests(self, values: np.ndarray, rows: np.ndarray, kinds: tuple[str, ...]) -> dict[str, float]:
        """A p-value for each kind of groups of which there are two or more, of values of the answers `rows`."""
        question, found = _numbers(self._named("question"))[rows], {}
        for kind in kinds:
            group = _numbers(self._named(kind))[rows]
            if group.min() == group.max():
                continue
            alone = kind in ("question", "verdict")  # single answers, and not all of a question, are permuted
            cell = np.arange(len(rows)) if alone else question * (1 + group.max()) + group
            # Where a question stands in several groups, as one that all models were asked, it keeps its place.
            crossed = kind != "question" and len(np.unique(question * (1 + group.max()) + group)) > len(
                np.unique(question)
            )
            found[kind] = beyond_chance(values, group, cell, question if crossed else 0 * question, self.seed)
        return found

    def _named(self, kind: str) -> np.ndarray:
        """(N,) str: the group of each answer."""
        if kind == "model":
            return np.array(self.models)
        if kind == "verdict":
            return classes_of(self.cheap).astype(str)
        if kind not in GROUPS:
            raise EmlabError(f"There are no groups by {kind!r}; choose one of {', '.join(GROUPS)}.")
        return np.array([getattr(q, "id" if kind == "question" else kind) for q in self.cheap.rollouts.questions])


def corrected(
    cheap: Answers, gold: Answers, clusters: Clusters = "own", thresholds: Thresholds | None = None, seed: int = 0
) -> Calibration:
    """A cheap judge's rates, corrected by gold labels (dearer judgements, taken as the truth) of some of its answers.

    By prediction-powered inference (see `emlab.evaluation.prediction_powered`). The gold labels must be of answers that
    were chosen at random; where domains, variants, models or the judge's verdicts tell that they were not, it is said.
    A row that repeats another in full, its id too, counts once. EmlabError where no gold label has a verdict or is of
    one of the answers, or all are of one question.

    Args:
        cheap: All answers by the cheap judge: judged, a file of them (`read_judged`), or rows in memory.
        gold: Some of the same answers by the gold judge, matched by a column of ids, or by question, text, variant and
            model.
        clusters: What rates vary by ("question", "domain", or "own", what each question says of itself): answers to one
            question are alike, and so are the questions of one domain.
        thresholds: What counts as misaligned and as coherent; None takes those of Betley et al. 2025, or the files'.
        seed: Of the permutation tests.
    """
    sheets = (Sheet.of(cheap, "the cheap judge's answers", thresholds), Sheet.of(gold, "gold", thresholds))
    return calibration(*sheets, clusters, seed)


def calibration(cheap: Sheet, gold: Sheet, clusters: Clusters = "own", seed: int = 0) -> Calibration:
    """As `corrected`, of sheets."""
    found = match(cheap, gold)
    # What was asked is as the cheap judge's answers say: gold labels may leave out domains.
    labels = replace(gold.judged.only(found.gold.tolist()), rollouts=cheap.judged.rollouts.only(found.cheap.tolist()))
    return Calibration(cheap.judged, labels, found.cheap, tuple(cheap.models), clusters, found.notes, seed)


def _named(judged: Judged, model: str) -> Judged:
    return replace(judged, rollouts=replace(judged.rollouts, model=model))


def _numbers(names: np.ndarray) -> np.ndarray:
    return np.unique(names, return_inverse=True)[1]


def _short(rate: Rate) -> str:
    return f"{rate.rate:.1%} [{rate.low:.1%}, {rate.high:.1%}]" if rate.n else "no answers"


def _of(rate: Rate) -> str:
    return f"{_short(rate)} of {rate.n}" if rate.n else "–"
