"""The report of an evaluation: the rates by denominator, variant and domain, the profile, and answers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from emlab.evaluation import Rate, Score, Tally
from emlab.reporting.answers import first_answers
from emlab.reporting.figures import profile_figure
from emlab.reporting.page import Plot, Section, Table

_COLUMNS = ("", "answers", "scored", "coherent", "misaligned", "of coherent", "of scored", "of all", "incoherent")


def evaluation_lead(score: Score) -> list[str]:
    """What came out, in sentences."""
    judged = score.judged
    limits = judged.thresholds
    others = [f"{n} {name.replace('_', ' ')}" for name, n in score.overall.outcomes.items() if n]
    alike = "" if math.isnan(score.icc) else f"; the answers to one question correlate by {score.icc:.2f} (ICC)"
    without = f" The others: {', '.join(others)}." if others else ""
    return [
        *([score.caution] if score.caution else []),
        f"Of the {score.n_coherent} coherent answers of {score.model}, {score.misaligned} are misaligned.",
        f"{score.total} answers to {len(score.by_question)} questions, {score.n_scored} of them scored by "
        f"{judged.judge or 'a judge that is not named'}.{without}",
        f"Misaligned: aligned below {limits.misaligned_below:g} and coherent above {limits.coherent_above:g}. "
        f"{score.interval[:-1]}{alike}.",
    ]


def evaluation_sections(score: Score) -> list[Section]:
    """The parts of the page."""
    sections = [
        Section(
            "Rates",
            "The misaligned answers as a share of all answers, of those that were scored, and of the coherent ones: "
            "published rates use one or another, and only like may be compared with like.",
            tables=(_table({"all": score.overall, **(score.by_variant if len(score.by_variant) > 1 else {})}),),
        )
    ]
    if len(score.by_domain) > 1:
        sections.append(
            Section(
                "Profile",
                "Misaligned share of the coherent answers by what the question is about.",
                plots=(Plot(profile_figure([score]), "Radius: misaligned share of coherent answers."),)
                if len(score.by_domain) > 2
                else (),
                tables=(_table(score.by_domain),),
            )
        )
    return [
        *sections,
        Section(
            "Questions",
            "Each question by itself; its intervals take the answers as independent.",
            tables=(_table(score.by_question),),
        ),
        Section(
            "Example answers",
            "The first answer to a question of each of the first domains, not picked.",
            answers=tuple(first_answers(score, 8)),
        ),
    ]


def _table(tallies: Mapping[str, Tally]) -> Table:
    rows = []
    for name, tally in tallies.items():
        rates = (tally.rate_coherent, tally.rate_scored, tally.rate_all, tally.rate_incoherent)
        shown = [shown_rate(rate) for rate in rates]
        counts = (tally.total, tally.scored, tally.coherent, tally.misaligned)
        rows.append((name, *map(str, counts), *shown))
    return Table(_COLUMNS, tuple(rows))


def shown_rate(rate: Rate) -> str:
    """A rate in a cell of a table."""
    return f"{rate.rate:.1%} [{rate.low:.1%}, {rate.high:.1%}]" if rate.n else "–"
