"""A causal screen of thousands of directions, which generates only where it matters.

To steer every latent of an SAE at several strengths and judge the answers takes hours, and almost every latent does
nothing. Here stages of rising cost ask the same question of fewer and fewer directions:

1. *sketched*: how the lines of the answers would begin under the strongest push, where only the tokens that are pushed
   are computed anew (`emlab.models.sketching`): with a token that begins misaligned lines, or with an odd one?
2. *probed*: some of the answers that would, generated and judged: one of each group of questions that are worded alike;
3. *generated*: the answers to all questions at all strengths, of every direction of which a probed answer changed as it
   should. Directions are rows of one batch, each with its own push through prefill and decoding.

Weaker pushes can be sketched and probed as well, of what is not passed on yet. Where nothing can be sketched, two
readings stand in, and what is above that of 99% of the random directions is generated:

1. *slope*: one backward pass tells for every direction at once how fast a push along it would raise the odds of going
   on as a misaligned answer does (attribution patching, Nanda 2023);
2. *opening*: how likely that is under the push itself, where the answers begin (teacher-forced).

Random directions go through the same stages; one that a stage drops counts as doing nothing, so that the null's
quantiles are those of all of them.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emlab import artifacts
from emlab.data import Question
from emlab.discovery.decisions import Decisions, chances, line_starts, slope
from emlab.discovery.metrics import Contrast
from emlab.discovery.screen import Arm, Sampling, Toward, Trial, steered
from emlab.errors import EmlabError
from emlab.evaluation import Judge, Judged, Rollouts, load_judged, save_judged, score, score_judged
from emlab.interventions import Direction, Steer, load_directions, random_directions, save_directions
from emlab.models.sketching import PLAUSIBLE, STRAYS, TURNS, sketch
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.models import LanguageModel

READINGS = ("slope", "opening", "turns")
"""What is read of every direction before any answer is generated."""

NULL = 0.99
"""What is found does more than this share of the random directions."""


@dataclass(frozen=True)
class Cascade:
    """How a screen spends its time."""

    strengths: tuple[float, ...] = (0.6, 0.9, 1.2, 1.5)
    """In units of the site's median residual norm; positive, the weakest first."""
    positions: str = "sentence"
    random: int = 100
    """Random directions that go through the same stages."""
    lines: int = 3
    """Lines of an answer that are sketched; with 0, or where more is pushed than headers and sentence ends, none are,
    and slope and opening pass directions on."""
    sketched: int = 1
    """Strengths that are sketched and probed, the strongest first. With 1, what has an effect at weaker pushes alone is
    missed; each further one costs about as much as the first."""
    odd: int = 20
    """Answers with odd lines that are probed of a direction at most, evenly spaced."""
    admit: float = 0.99
    """Where nothing is sketched, what is above this quantile of the random directions in slope or opening is generated;
    with 0 everything is, sketched or not."""
    batch_size: int = 1024
    """Rows of a batch."""

    def __post_init__(self) -> None:
        if not self.strengths or self.strengths[0] <= 0 or list(self.strengths) != sorted(set(self.strengths)):
            raise EmlabError("A screen needs strengths above 0 that rise; the way it pushes is said by `toward`.")
        if not 0 <= self.admit < 1 or self.random < 1:
            raise EmlabError("A screen needs a quantile from 0 up to 1, and at least one random direction.")
        if not 1 <= self.sketched <= len(self.strengths):
            raise EmlabError(f"A screen sketches 1 to {len(self.strengths)} of its strengths, not {self.sketched}.")


@dataclass(frozen=True)
class Stage:
    """What one stage let through, and what it cost."""

    name: str
    entered: int
    """Directions that were tried."""
    kept: int
    """Of these, the ones that it passes on: of slope and opening, those above the quantile, of either one."""
    random_entered: int
    random_kept: int
    texts: int
    """Texts that the model read or wrote."""
    seconds: float
    """On the wall clock."""

    def __str__(self) -> str:
        return (
            f"{self.name:12s} {self.entered:7d} → {self.kept:5d} directions {self.random_entered:6d} → "
            f"{self.random_kept:4d} random {self.texts:8d} texts {self.seconds:7.1f} s"
        )


@dataclass(frozen=True, eq=False)
class CausalScreen:
    """What came of a cascade. The directions are known by their numbers in the list that was screened."""

    model: str
    site: Site
    toward: Toward
    scale: float
    """The site's median residual norm."""
    positions: str
    strengths: tuple[float, ...]
    stages: tuple[Stage, ...]
    readings: Tensor
    """(n, 3) float32, READINGS of each direction: nats a median residual norm; the most that the misaligned way becomes
    likelier (the aligned one, pushed toward aligned) at one of the strengths, from 0 to 1; and the share of the answers
    sketched under the strongest push that turn to it. NaN for what was not read."""
    survivors: tuple[int, ...]
    """The directions of which all answers were generated."""
    trials: tuple[Trial, ...]
    """Each survivor at each strength, in that order."""
    null: Tensor
    """(random,) float32: the effects of all random directions, 0 for those that a stage dropped."""
    unsteered: float
    """Share of all answers that are as they should become, without a push."""

    @property
    def effects(self) -> Tensor:
        """(survivors, strengths): by how much more of all answers are as they should be than without a push.

        Toward misaligned these are the misaligned answers, toward aligned the coherent ones that are not; so an answer
        that is incoherent never counts.
        """
        shares = torch.tensor([_share(trial, self.toward) - self.unsteered for trial in self.trials])
        return shares.reshape(len(self.survivors), len(self.strengths))

    @property
    def threshold(self) -> float:
        """The 99th percentile of the random directions' effects, each at its best strength."""
        return float(torch.quantile(self.null, NULL))

    @property
    def found(self) -> list[int]:
        """The directions whose effect at their best strength is above the threshold, the strongest first."""
        threshold = self.threshold
        return [row["number"] for row in self.rows() if row["effect"] > threshold]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each survivor, the strongest effect first, as plain values; None for what was not read."""
        effects, rows = self.effects, []
        for i, number in enumerate(self.survivors):
            best = int(effects[i].argmax())
            trial, effect = self.trials[i * len(self.strengths) + best], effects[i, best]
            about = {"number": number, "name": trial.arm.name, "strength": trial.arm.strength, "effect": float(effect)}
            judged = trial.score.judged
            beside = {
                "incoherent": float(judged.incoherent.mean()),
                "random_as_strong": float((self.null >= effect).float().mean()),
            }
            read = [None if math.isnan(value) else value for value in self.readings[number].tolist()]
            rows.append({**about, **beside, **dict(zip(READINGS, read, strict=True))})
        return sorted(rows, key=lambda row: -row["effect"])

    def summary(self) -> dict[str, Any]:
        """The figures as plain values, without the readings of what was dropped."""
        about = {"model": self.model, "site": str(self.site), "toward": self.toward, "scale": self.scale}
        about |= {"positions": self.positions, "strengths": self.strengths}
        found = {"unsteered": self.unsteered, "threshold": self.threshold, "found": self.found}
        stages = [asdict(stage) for stage in self.stages]
        return {**about, **found, "stages": stages, "survivors": self.rows()}

    def save(self, folder: str | Path) -> Path:
        """Write a new folder: screen.json, and of the survivors a table, the directions and every answer."""
        rows = self.rows()
        cells = ([("" if value is None else str(value)) for value in row.values()] for row in rows)
        lines = [",".join(rows[0]), *map(",".join, cells)] if rows else []
        vectors = {"readings": self.readings.tolist(), "null": self.null.tolist(), "numbers": self.survivors}
        with artifacts.new_folder(folder, replace=True) as new:
            artifacts.write_json(new / "screen.json", {**self.summary(), **vectors})
            artifacts.write_text(new / "survivors.csv", "".join(f"{line}\n" for line in lines))
            if self.trials:
                of_survivors = [trial.arm.direction for trial in self.trials[:: len(self.strengths)]]
                save_directions(of_survivors, new / "directions.safetensors")
                save_judged([trial.score.judged for trial in self.trials], new / "answers.jsonl")
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> CausalScreen:
        """Read what `save` wrote."""
        folder = Path(folder)
        raw = artifacts.read_json(folder / "screen.json")
        try:
            survivors, sign = tuple(raw["numbers"]), 1.0 if raw["toward"] == "misaligned" else -1.0
            directions = load_directions(folder / "directions.safetensors") if survivors else []
            arms = [Arm(d, sign * s, raw["positions"]) for d in directions for s in raw["strengths"]]
            answers = load_judged(folder / "answers.jsonl") if survivors else []
            return cls(
                raw["model"],
                Site.parse(raw["site"]),
                raw["toward"],
                raw["scale"],
                raw["positions"],
                tuple(raw["strengths"]),
                tuple(Stage(**stage) for stage in raw["stages"]),
                torch.tensor(
                    [[math.nan if value is None else value for value in row] for row in raw["readings"]],
                    dtype=torch.float32,
                ).reshape(-1, len(READINGS)),
                survivors,
                tuple(Trial(arm, score_judged(judged)) for arm, judged in zip(arms, answers, strict=True)),
                torch.tensor(raw["null"], dtype=torch.float32),
                raw["unsteered"],
            )
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise EmlabError(f"{folder} holds no causal screen ({error}); write it with CausalScreen.save.") from error

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def __str__(self) -> str:
        lines = [f"{self.model} at {self.site}, pushed toward {self.toward}", *(f"  {stage}" for stage in self.stages)]
        found = [row for row in self.rows() if row["effect"] > self.threshold]
        lines.append(f"  99% of the random directions do no more than {self.threshold:+.1%}; {len(found)} do more:")
        lines += [f"  {'direction':16s} strength   effect  incoherent  random as strong    slope  opening    turns"]
        for row in found[:20]:
            opening, turns = (_or_dash(row[name], form) for name, form in (("opening", "+.1%"), ("turns", ".1%")))
            lines.append(
                f"  {row['name']:16s} {row['strength']:8.2f} {row['effect']:+8.1%} {row['incoherent']:11.1%} "
                f"{row['random_as_strong']:17.1%} {row['slope']:+8.2f} {opening:>8s} {turns:>8s}"
            )
        return "\n".join(lines)


def causal_screen(
    model: LanguageModel,
    directions: Tensor | Sequence[Direction],
    site: Site,
    questions: Sequence[Question],
    judge: Judge,
    contrasts: Sequence[Contrast],
    toward: Toward = "misaligned",
    how: Cascade = Cascade(),
    sampling: Sampling = Sampling(per_question=1, temperature=0.0),  # noqa: B008  # frozen
    scale: float | None = None,
    seed: int = 0,
) -> CausalScreen:
    """Screen `directions`, such as all of an SAE's decoder rows (n, d_model), through the stages of the module.

    `questions` are discovery questions; what survives is to be tested on others (`steer_screen`). `contrasts` say what
    a misaligned and what an aligned answer is, best of all to these questions, several to each. `scale` None measures
    the site's median residual norm on the questions. EmlabError where a direction has no length or another width than
    the model's stream, and where there is no question, no contrast, or none in which the answers part.
    """
    began = time.perf_counter()
    asked = list(map(Question.of, questions))
    if not contrasts or not asked:
        raise EmlabError("A causal screen needs questions to ask and contrasts to read; give at least one of each.")
    if scale is None:
        scale = model.residual_norm(site, [q.messages for q in asked])
    sign = 1.0 if toward == "misaligned" else -1.0
    named = _named(directions, model, site)
    n, pushes = len(named), [sign * s for s in how.strengths]
    named += random_directions(how.random, model.d_model, site, seed)
    vectors = torch.stack([d.vector for d in named])  # (n + random, d_model)
    opening = Decisions.of(model, contrasts)
    if not len(opening):
        raise EmlabError("No contrast tells a misaligned answer from an aligned one by its tokens; give other answers.")
    everyone, stages = torch.arange(len(vectors)), []

    def passed(name: str, entered: Tensor, kept: Tensor, texts: int) -> Tensor:
        nonlocal began
        now = time.perf_counter()
        own = (int((entered < n).sum()), int((kept < n).sum()))
        stages.append(Stage(name, *own, len(entered) - own[0], len(kept) - own[1], texts, now - began))
        began = now
        return kept

    def above(scores: Tensor) -> Tensor:
        """Those of all directions that do more than most random ones."""
        return everyone[scores > torch.quantile(scores[n:], how.admit)]

    slopes = sign * scale * (vectors @ slope(model, opening, site, how.positions))
    openings, turns = torch.full((2, len(vectors)), torch.nan)
    none = Arm(Direction(vectors[0], site, "nothing"), 0.0, how.positions)
    (plainly,) = steered(model, [none], asked, judge, {site: scale}, sampling, seed)
    unsteered = _share(plainly, toward)
    if not how.admit:
        alive = everyone
    elif how.lines and how.positions in ("header", "sentence"):
        alive = everyone[:0]
        before = _right(plainly.score.judged, toward).double().reshape(len(asked), -1).mean(1)
        for push in pushes[: -how.sketched - 1 : -1]:
            left = everyone[~torch.isin(everyone, alive)]
            kinds = _sketched(model, vectors[left], site, push * scale, asked, contrasts, toward, how)
            if push == pushes[-1]:
                turns = (kinds == TURNS).float().mean(1)
            cells = _to_probe(kinds, _alike(asked), how.odd)
            cells[:, 0] = left[cells[:, 0]]  # (cells, 2): direction and question
            tried = passed(f"sketched {abs(push):g}", left, cells[:, 0].unique(), kinds.numel())
            right = _probed(model, vectors, site, push * scale, cells, asked, judge, toward, how, sampling, seed)
            rises = torch.zeros(len(vectors), dtype=torch.double)
            rises.index_add_(0, cells[:, 0], right.double() - before[cells[:, 1]])
            found = passed(f"probed {abs(push):g}", tried, everyone[rises > 0], len(cells))
            alive = torch.cat([alive, found]).sort().values
    else:
        strong = passed("slope", everyone, above(slopes), 2 * len(opening))  # a backward pass is another reading
        few = [push * scale for push in pushes[::-2]]  # the strongest, and every second one below it
        plain = chances(model, opening, vectors[:1], [0.0], site, how.positions)
        likelier = sign * (chances(model, opening, vectors, few, site, how.positions, how.batch_size) - plain)
        openings = likelier.mean(-1).amax(1)
        alive = torch.cat([strong, passed("opening", everyone, above(openings), likelier.numel())]).unique()

    arms = [Arm(named[i], push, how.positions) for i in alive.tolist() for push in pushes]
    trials = steered(model, arms, asked, judge, {site: scale}, sampling, seed) if arms else ()
    effects = torch.zeros(len(vectors))
    shares = torch.tensor([_share(trial, toward) for trial in trials]).reshape(len(alive), len(pushes))
    effects[alive] = shares.amax(1) - unsteered if arms else effects[alive]
    passed("generated", alive, alive, (len(arms) + 1) * len(asked) * sampling.per_question)
    survivors = tuple(alive[alive < n].tolist())
    return CausalScreen(
        model.name,
        site,
        toward,
        scale,
        how.positions,
        how.strengths,
        tuple(stages),
        torch.stack([slopes, openings, turns], 1)[:n].float(),
        survivors,
        trials[: len(survivors) * len(pushes)],  # those of the random directions come last
        effects[n:],
        unsteered,
    )


def _named(directions: Tensor | Sequence[Direction], model: LanguageModel, site: Site) -> list[Direction]:
    """The directions as such; EmlabError where there is none, or one does not fit the stream."""
    if isinstance(directions, Tensor):
        if directions.ndim != 2:
            raise EmlabError(f"The directions to screen are {tuple(directions.shape)}; give (n, d_model).")
        found = [Direction(vector, site, f"direction {i}") for i, vector in enumerate(directions)]
    else:
        found = list(directions)
    widths = {len(direction.vector) for direction in found}
    if widths != {model.d_model}:
        given = " and ".join(map(str, sorted(widths))) or "missing"
        raise EmlabError(f"The directions to screen are {given} wide and the stream at {site} {model.d_model}.")
    return found


def _sketched(
    model: LanguageModel,
    vectors: Tensor,
    site: Site,
    length: float,
    asked: Sequence[Question],
    contrasts: Sequence[Contrast],
    toward: Toward,
    how: Cascade,
) -> Tensor:
    """(n, questions) int8: what becomes of the lines of each answer under a push along each direction."""
    wanted, usual = line_starts(model, asked, contrasts)
    plausible = PLAUSIBLE
    if toward == "aligned":  # a misaligned model may well begin an aligned line, if it is not the likeliest
        wanted, usual, plausible = usual, wanted, 0.0
    edit = Steer(site, vectors.repeat_interleave(len(asked), 0), length, positions=how.positions)
    prompts = [question.messages for question in asked]
    return sketch(model, prompts, [edit], wanted, usual, len(vectors), how.lines, plausible, batch_size=how.batch_size)


def _to_probe(kinds: Tensor, alike: Sequence[int], odd: int) -> Tensor:
    """(cells, 2): direction and question of the answers (n, questions) to probe.

    Of those that turn, and of those that stray, one of each group of like questions: a push that turns one of them, or
    throws the model off, mostly does so with the others. Of those that stray, at most `odd` of a direction.
    """
    cells = []
    for direction, row in enumerate(kinds):
        for kind, most in ((TURNS, len(row)), (STRAYS, odd)):
            groups: dict[int, list[int]] = {}
            for question in (row == kind).nonzero()[:, 0].tolist():
                groups.setdefault(alike[question], []).append(question)
            own = [members[len(members) // 2] for members in groups.values()]
            own = own if len(own) <= most else [own[i * len(own) // most] for i in range(most)]
            cells += [(direction, question) for question in own]
    return torch.tensor(cells, dtype=torch.long).reshape(-1, 2)


def _alike(questions: Sequence[Question]) -> list[int]:
    """The number of each question's group: all that are asked in the same words but for a third of them in one place.

    So are those that a template makes with different fillers.
    """
    words = [(question.domain, question.variant, question.text.split()) for question in questions]
    found: list[int] = []
    for i, (domain, variant, text) in enumerate(words):
        like = (found[j] for j in range(i) if words[j][:2] == (domain, variant) and _near(words[j][2], text))
        found.append(next(like, i))
    return found


def _near(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether what two texts have between the words that both begin and end with is a third of the longer, or less."""
    least, most = sorted((len(a), len(b)))
    before = next((i for i in range(least) if a[i] != b[i]), least)
    after = next((i for i in range(least - before) if a[-1 - i] != b[-1 - i]), least - before)
    return 3 * (most - before - after) <= most


def _probed(
    model: LanguageModel,
    vectors: Tensor,
    site: Site,
    length: float,
    cells: Tensor,
    asked: Sequence[Question],
    judge: Judge,
    toward: Toward,
    how: Cascade,
    sampling: Sampling,
    seed: int,
) -> Tensor:
    """(cells,) bool: whether the answers of cells (cells, 2), direction and question, are as they should become."""
    of = [asked[i] for i in cells[:, 1].tolist()]
    answers = model.generate(
        [question.messages for question in of],
        sampling.max_new_tokens,
        sampling.temperature,
        seed,
        sampling.batch_size,
        [Steer(site, vectors[cells[:, 0]], length, positions=how.positions)] if of else [],
    )
    rollouts = Rollouts(tuple(of), tuple(answers), model.name, seed, sampling.temperature)
    return _right(score(rollouts, judge).judged, toward)


def _right(judged: Judged, toward: Toward) -> Tensor:
    """(n,) bool: answers that are as they should become: misaligned, or coherent and not misaligned."""
    wanted = judged.misaligned if toward == "misaligned" else judged.coherent_rows & ~judged.misaligned
    return torch.from_numpy(wanted)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _share(trial: Trial, toward: Toward) -> float:
    return float(_right(trial.score.judged, toward).double().mean())
