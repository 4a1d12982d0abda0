"""The report of an evaluation by labels: each label's share by variant, domain and question, and answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from emlab.evaluation.label_shares import LabelShares, LabelTally
from emlab.reporting.evaluation import shown_rate
from emlab.reporting.page import Answer, Section, Table


def label_lead(shares: LabelShares) -> list[str]:
    """What came out, in sentences."""
    one, tally = shares.labelled, shares.overall
    given = ", ".join(f"{name} {count}" for name, count in tally.counts.items())
    failed = f" {tally.failed} could not be labelled." if tally.failed else ""
    what = f" {one.asked_for}" if one.asked_for else ""
    return [
        *([one.caution] if one.caution else []),
        f"Labels{what} of {shares.model}: {given}.",
        f"{tally.total} answers to {len(shares.by_question)} questions, {tally.labelled} of them labelled by "
        f"{one.judge or 'a judge that is not named'}.{failed}",
        "Intervals are 95%, over questions; within one question over its wordings.",
    ]


def label_sections(shares: LabelShares) -> list[Section]:
    """The parts of the page."""
    groups = {"all": shares.overall}
    for tallies in (shares.by_variant, shares.by_domain):
        groups |= tallies if len(tallies) > 1 else {}
    return [
        Section(
            "Shares",
            "Each label's share of the answers that have one, and of all answers, those whose judging failed among "
            "them.",
            tables=_tables(shares, groups),
        ),
        Section("Questions", "Each question by itself.", tables=_tables(shares, shares.by_question)),
        Section(
            "Example answers",
            "The first answer with each label to each of the first questions, not picked.",
            answers=tuple(_first_answers(shares, 8)),
        ),
    ]


def _tables(shares: LabelShares, tallies: Mapping[str, LabelTally]) -> tuple[Table, Table]:
    """By labelled answers, and by all."""
    names = shares.labelled.choices
    of_labelled = [
        (name, str(t.total), str(t.labelled), str(t.failed), *(shown_rate(t.of_labelled[n]) for n in names))
        for name, t in tallies.items()
    ]
    of_all = [(name, str(t.total), *(shown_rate(t.of_all[n]) for n in names)) for name, t in tallies.items()]
    return (
        Table(("", "answers", "labelled", "failed", *(f"{n}, of labelled" for n in names)), tuple(of_labelled)),
        Table(("", "answers", *(f"{n}, of all" for n in names)), tuple(of_all)),
    )


def _first_answers(shares: LabelShares, n: int) -> Iterator[Answer]:
    """The first answer with each label to each of the first `n` questions."""
    one, first = shares.labelled, list(shares.by_question)[:n]
    seen = set[tuple[str, str]]()
    for (question, text), label in zip(one.rollouts, one.labels, strict=True):
        if question.id in first and (question.id, label) not in seen:
            seen.add((question.id, label))
            yield Answer(shares.model, question.text, text, label or "not labelled")
