"""Pages about latents: one for each with its contexts, and an index of all. Plain HTML without scripts."""

from __future__ import annotations

from collections.abc import Sequence

from emlab.discovery import Accuracy, Context, Interpretation, InterpretedLatent
from emlab.evaluation import Rate
from emlab.reporting.page import Link, Page, Section, Shaded, Table

INDEX = "index.html"


def interpretation_pages(found: Interpretation) -> dict[str, Page]:
    """Each page by the name of its file: index.html, and latent-N.html for every latent."""
    index = _page(found, "Latents", [_overview(found, True)])
    return {INDEX: index, **{_file(one): latent_page(found, one.latent) for one in found.latents}}


def latent_page(found: Interpretation, latent: int) -> Page:
    """The page of one latent. EmlabError where it is not among those interpreted."""
    one = found.latent(latent)
    return _page(found, f"Latent {latent}", _sections(one), _name(one))


def interpretation_page(found: Interpretation) -> Page:
    """All on one page, as a notebook shows it."""
    sections = [_overview(found, False)]
    for one in found.latents:
        sections += _sections(one, f"Latent {one.latent}: ")
    return _page(found, "Latents", sections)


def _file(one: InterpretedLatent) -> str:
    return f"latent-{one.latent}.html"


def _page(found: Interpretation, what: str, sections: Sequence[Section], named: Sequence[str] = ()) -> Page:
    lead = [*named, f"{found.model} read {found.documents}: {found.counts}."]
    if found.named_by:
        lead.append(
            f"Names are by {found.named_by}, from excerpts of one half of the documents, and were tested on the other."
        )
    return Page(f"{what} at {found.site} of {found.model}", lead, sections, f"emlab, seed {found.seed}")


def _name(one: InterpretedLatent) -> tuple[str, ...]:
    if one.name is None:
        return ()
    return (f"Named: {one.name.name}",) if one.name.name else (f"It has no name: {one.name.failure}.",)


def _overview(found: Interpretation, linked: bool) -> Section:
    header = ("latent", "name", "tokens", "documents", "peak", "mean highest in", "promotes")
    tests = tuple(dict.fromkeys(score.test for one in found.latents for score in one.scores))
    rows = []
    for one in found.latents:
        everywhere, kind = one.activity[0], one.highest
        scores = {score.test: score for score in one.scores}
        rows.append(
            (
                Link(str(one.latent), _file(one)) if linked else str(one.latent),
                one.name.name or "–" if one.name is not None else "–",
                f"{everywhere.active / everywhere.tokens:.2%}",
                f"{everywhere.fires.rate:.1%}",
                f"{everywhere.peak:.2f}",
                f"{kind.column} {kind.value}" if kind is not None else "–",
                " ".join(repr(effect.token) for effect in one.weights.promoted[:5]) or "–",
                *(_rate(scores[test].own.balanced) if test in scores else "–" for test in tests),
            )
        )
    return Section(
        "All latents",
        "On what share of the tokens, and in what share of the documents, each is active; in which kind of documents "
        "its mean activation is highest, by the lower end of its interval; the tokens whose logits it raises."
        + (" Detection and fuzzing: balanced accuracy of the name, 0.5 being chance." if tests else ""),
        tables=(Table((*header, *tests), tuple(rows)),),
    )


def _sections(one: InterpretedLatent, before: str = "") -> list[Section]:
    if not one.fires:
        never = f"It is never active on the {one.activity[0].tokens:,} tokens that count; read more or other documents."
        return [Section(f"{before}Activity", never), _weights(one, before)]
    peak = one.activity[0].peak
    sections = [
        Section(
            f"{before}Strongest activations",
            "Around the strongest activation of each of the documents in which it is most active, or of the pieces of "
            "long ones; the redder a token, the stronger.",
            contexts=tuple(_shaded(context, peak) for context in one.top),
            falsified="contexts that have nothing in common, or only one word.",
        ),
        _activity(one, before),
    ]
    sections += [
        Section(
            f"{before}From {quantile.low:.0%} to {quantile.high:.0%} of its distribution",
            "Drawn at random from all stretches of text in which it is active, in this part of the order of their "
            "peaks.",
            contexts=tuple(_shaded(context, peak) for context in quantile.contexts),
        )
        for quantile in reversed(one.quantiles)
    ]
    return [*sections, _weights(one, before), *_tests(one, before)]


def _activity(one: InterpretedLatent, before: str) -> Section:
    header = ("documents", "number", "tokens", "active tokens", "fires in", "mean activation", "peak")
    rows = []
    for activity in one.activity:
        low, high = activity.interval
        rows.append(
            (
                f"{activity.column} {activity.value}".strip() or "all",
                str(activity.documents),
                f"{activity.tokens:,}",
                f"{activity.active / activity.tokens:.2%}",
                _percent(activity.fires),
                f"{activity.mean:.3f}" + (f" [{low:.3f}, {high:.3f}]" if activity.documents > 1 else ""),
                f"{activity.peak:.2f}",
            )
        )
    return Section(
        f"{before}Activity",
        "In all documents, and in those of each kind: in how many it fires (Wilson's interval), and its mean on a "
        "token, every document counting the same (Student's interval over documents).",
        tables=(Table(header, tuple(rows)),),
        falsified="the same activation in every kind of documents, where it is said to stand for one." * bool(rows[1:]),
    )


def _shaded(context: Context, peak: float) -> Shaded:
    label = f"{context.peak:.2f}" + (f" {context.label}" if context.label else "")
    return Shaded(label, context.tokens, tuple(value / peak for value in context.activations))


def _weights(one: InterpretedLatent, before: str) -> Section:
    weights = one.weights
    tokens = tuple(
        (repr(up.token), f"{up.effect:+.3f}", repr(down.token), f"{down.effect:+.3f}")
        for up, down in zip(weights.promoted, weights.suppressed, strict=True)
    )
    latents = tuple(
        (str(near.latent), f"{near.cosine:+.3f}", str(far.latent), f"{far.cosine:+.3f}")
        for near, far in zip(weights.nearest, weights.opposed, strict=True)
    )
    tables = (
        Table(("promoted", "effect", "suppressed", "effect"), tokens),
        Table(("nearest latent", "cosine", "opposed", "cosine"), latents),
    )
    return Section(
        f"{before}Weights",
        "What its decoder row does to the logits directly, through the final norm's weight and the unembedding, less "
        "the mean over the vocabulary; what later blocks make of it, and the norm's division by the stream's size, are "
        "left out (the logit lens, nostalgebraist 2020). And the latents whose decoder rows are most like it.",
        tables=tuple(table for table in tables if table.rows),
    )


def _tests(one: InterpretedLatent, before: str) -> list[Section]:
    if not one.scores:
        return []
    rows, shares = [], []
    for score in one.scores:
        others = ", ".join(map(str, score.control_latents)) or "none"
        rows.append((f"{score.test}, its own excerpts", *_accuracy(score.own)))
        rows.append((f"{score.test}, excerpts of latents {others}", *_accuracy(score.control)))
        rows.append((f"{score.test}, difference", _rate(score.gain), "", "", ""))
        shares.append((score.test, *(f"{part.rate:.0%} of {part.n}" if part.n else "–" for part in score.parts)))
    fifths = ("right where YES", *(f"{20 * i}–{20 * (i + 1)}%" for i in range(5)))
    return [
        Section(
            f"{before}Whether the name is right",
            "Detection: told the name, the language model says in which excerpts the latent fires. Fuzzing: it says "
            "whether the right tokens are marked. Balanced accuracy, 0.5 being chance; beside it the same name on the "
            "excerpts of other latents, drawn at random; and of its own excerpts the share told right by where their "
            "activation stands in its distribution, from the weakest fifth to the strongest.",
            tables=(
                Table(("", "accuracy", "right where YES", "right where NO", "no answer"), tuple(rows)),
                Table(fifths, tuple(shares)),
            ),
            falsified="an accuracy as high on other latents' excerpts.",
        )
    ]


def _percent(rate: Rate) -> str:
    return f"{rate.rate:.0%} [{rate.low:.0%}, {rate.high:.0%}]" if rate.n else "–"


def _rate(rate: Rate) -> str:
    return f"{rate.rate:.2f} [{rate.low:.2f}, {rate.high:.2f}]" if rate.n else "–"


def _accuracy(accuracy: Accuracy) -> tuple[str, ...]:
    yes, no = accuracy.right_yes, accuracy.right_no
    failed = f"{accuracy.failed} ({accuracy.said!r})" if accuracy.failed else "0"
    return _rate(accuracy.balanced), f"{_percent(yes)} of {yes.n}", f"{_percent(no)} of {no.n}", failed
