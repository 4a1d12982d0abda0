"""A causal screen of thousands of directions, which generates only where it matters.

To steer every latent of an SAE at several strengths and judge the answers takes hours, and almost every latent does
nothing. Here stages of rising cost ask the same question of fewer and fewer directions:

1. *sketched*: how the lines of the answers would begin under the strongest push, where only the tokens that are pushed
   are computed anew (`emlab.models.sketching`): with a token that begins misaligned lines, or with an odd one?
2. *probed*: some of the answers that would, generated and judged: one of each group of questions that are worded alike;
3. *generated*: the answers to all questions at all strengths, of every direction of which a probed answer changed as it
   should. Directions are rows of one batch, each with its own push through prefill and decoding.

The next weaker push is sketched and probed too, of directions that are not passed on yet, and of those answers alone
that the stronger one does not leave as they are. Where nothing can be sketched, two readings stand in, and what is
above that of 99% of the random directions is generated:

1. *slope*: one backward pass tells for every direction at once how fast a push along it would raise the odds of going
   on as a misaligned answer does (attribution patching, Nanda 2023);
2. *opening*: how likely that is under the push itself, where the answers begin (teacher-forced).

Random directions go through the same stages; one that a stage drops counts as doing nothing, so that the null's
quantiles are those of all of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from emlab.data import Question
from emlab.data.prompts import as_questions
from emlab.discovery.decisions import Decisions, chances, line_starts, slope
from emlab.discovery.metrics import Contrast
from emlab.discovery.screen import SteeringArm, Toward, steered
from emlab.discovery.screened import CausalScreen, Stage, as_wanted, share_as_wanted
from emlab.errors import EmlabError
from emlab.evaluation import Judge, Rollouts, Sampling, score
from emlab.interventions import Direction, Steer, random_directions
from emlab.models.sketching import PLAUSIBLE, STAYS, STRAYS, TURNS, sketch
from emlab.models.wrapping import as_language_model
from emlab.sealing import refuse
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.models import LanguageModel


@dataclass(frozen=True)
class Cascade:
    """How a causal screen pushes, spends its time, and samples."""

    strengths: tuple[float, ...] = (0.6, 0.9, 1.2, 1.5)
    """In units of the site's median residual norm; positive, the weakest first."""
    positions: str = "sentence"
    random: int = 100
    """Random directions that go through the same stages."""
    lines: int = 3
    """Lines of an answer that are sketched; with 0, or where more is pushed than headers and sentence ends, none are,
    and slope and opening pass directions on."""
    sketched: int = 2
    """Strengths that are sketched and probed, the strongest first; all, if there are fewer. With 1, what has an effect
    at weaker pushes alone is missed; a further one costs about half as much as the first."""
    odd: int = 6
    """Answers with odd lines that are probed of a direction at most, if none that turns does as it should."""
    admit: float = 0.99
    """Where nothing is sketched, what is above this quantile of the random directions in slope or opening is generated;
    with 0 everything is, sketched or not."""
    batch_size: int = 1024
    """Rows of a batch that is read or sketched."""
    toward: Toward = "misaligned"
    """Misaligned adds the directions, aligned subtracts them."""
    sampling: Sampling = Sampling(per_question=1, temperature=0.0)
    """Of the answers that are generated."""

    def __post_init__(self) -> None:
        if not self.strengths or self.strengths[0] <= 0 or list(self.strengths) != sorted(set(self.strengths)):
            raise EmlabError("A screen needs strengths above 0 that rise; the way it pushes is said by `toward`.")
        if not 0 <= self.admit < 1 or self.random < 1:
            raise EmlabError("A screen needs a quantile from 0 up to 1, and at least one random direction.")
        if self.lines < 0 or self.batch_size < 1:
            raise EmlabError(
                f"A screen sketches no less than 0 lines, in batches of at least 1 row, and not {self.lines} and "
                f"{self.batch_size}."
            )
        if self.sketched < 1 or self.odd < 0:
            raise EmlabError(
                f"A screen sketches one strength at least, and probes no less than 0 odd answers; it is to do "
                f"{self.sketched} and {self.odd}."
            )


def causal_screen(
    model: LanguageModel,
    directions: Tensor | Sequence[Direction],
    site: Site,
    questions: Sequence[Question],
    judge: Judge,
    contrasts: Sequence[Contrast],
    settings: Cascade = Cascade(),  # frozen
    scale: float | None = None,
    seed: int = 0,
) -> CausalScreen:
    """Screen `directions`, such as all of an SAE's, through the stages of the module.

    Args:
        model: Who is pushed.
        directions: Decoder rows (n, d_model), or directions.
        site: Where they push.
        questions: Discovery questions; what survives is to be tested on others (`steer_screen`).
        judge: Judges every answer.
        contrasts: What a misaligned and what an aligned answer is, best of all to these questions, several to each.
        settings: The stages.
        scale: The unit of strength; by default the site's median residual norm on the questions.
        seed: Everything random follows from it.

    EmlabError where a direction has no length or another width than the model's stream, and where there is no question,
    no contrast, or none in which the answers part.
    """
    model = as_language_model(model)
    asked = as_questions(questions)
    refuse("to choose latents on", asked)
    if not contrasts or not asked:
        raise EmlabError("A causal screen needs questions to ask and contrasts to read; give at least one of each.")
    named = _named(directions, model, site)
    n, stages = len(named), _Stages(len(named))
    if scale is None:
        scale = model.residual_norm(site, [q.messages for q in asked])
    named += random_directions(settings.random, model.d_model, site, seed)
    vectors = torch.stack([d.vector for d in named])  # (n + random, d_model)
    toward, sampling = settings.toward, settings.sampling
    task = _Task(model, vectors, site, scale, asked, contrasts, judge, settings, seed)
    opening = Decisions.of(model, contrasts)
    if not len(opening):
        raise EmlabError("No contrast tells a misaligned answer from an aligned one by its tokens; give other answers.")
    slopes = task.sign * scale * (vectors @ slope(model, opening, site, settings.positions))
    openings, turns = torch.full((2, len(vectors)), torch.nan)
    none = SteeringArm(Direction(vectors[0], site, "nothing"), 0.0, settings.positions)
    (plainly,) = steered(model, [none], asked, judge, {site: scale}, sampling, seed)
    unsteered = share_as_wanted(plainly, toward)
    if not settings.admit:
        alive = torch.arange(len(vectors))
    elif settings.lines and settings.positions in ("header", "sentence"):
        before = as_wanted(plainly.score.judged, toward).double().reshape(len(asked), -1).mean(1)
        alive, turns = _by_sketches(task, before, stages)
    else:
        alive, openings = _by_readings(task, opening, slopes, stages)

    arms = [SteeringArm(named[i], push, settings.positions) for i in alive.tolist() for push in task.pushes]
    trials = steered(model, arms, asked, judge, {site: scale}, sampling, seed) if arms else ()
    effects = torch.zeros(len(vectors))
    shares = torch.tensor([share_as_wanted(trial, toward) for trial in trials]).reshape(
        len(alive), len(settings.strengths)
    )
    effects[alive] = shares.amax(1) - unsteered if arms else effects[alive]
    stages.passed("generated", alive, alive, (len(arms) + 1) * len(asked) * sampling.per_question)
    survivors = tuple(alive[alive < n].tolist())
    return CausalScreen(
        model.name,
        site,
        toward,
        scale,
        settings.positions,
        settings.strengths,
        tuple(stages.done),
        torch.stack([slopes, openings, turns], 1)[:n].float(),
        survivors,
        trials[: len(survivors) * len(settings.strengths)],  # those of the random directions come last
        effects[n:],
        unsteered,
    )


class _Stages:
    """The stages that directions went through, each timed from the end of the one before."""

    def __init__(self, own: int) -> None:
        self.own = own
        """Directions that are not random; the others come after them."""
        self.done: list[Stage] = []
        self._began = time.perf_counter()

    def passed(self, name: str, entered: Tensor, kept: Tensor, texts: int) -> None:
        """A stage is over; `entered` and `kept` are numbers of directions."""
        now = time.perf_counter()
        own = (int((entered < self.own).sum()), int((kept < self.own).sum()))
        self.done.append(Stage(name, *own, len(entered) - own[0], len(kept) - own[1], texts, now - self._began))
        self._began = now


@dataclass(frozen=True, eq=False)
class _Task:
    """What `causal_screen` was asked."""

    model: LanguageModel
    vectors: Tensor
    """(n + random, d_model): all directions."""
    site: Site
    scale: float
    asked: Sequence[Question]
    contrasts: Sequence[Contrast]
    judge: Judge
    settings: Cascade
    seed: int

    @property
    def sign(self) -> float:
        return 1.0 if self.settings.toward == "misaligned" else -1.0

    @property
    def pushes(self) -> list[float]:
        """The strengths with their sign, the weakest first."""
        return [self.sign * strength for strength in self.settings.strengths]

    def steer(self, directions: Tensor, push: float) -> Steer:
        """The edit whose rows are pushes along `directions`, numbers (rows,)."""
        return Steer(self.site, self.vectors[directions], push * self.scale, positions=self.settings.positions)


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


def _by_sketches(task: _Task, before: Tensor, stages: _Stages) -> tuple[Tensor, Tensor]:
    """The directions (survivors,) of which a probed answer changes as it should.

    And of all, what share of the answers turns under the strongest push, (n + random,). `before` (questions,): the
    share of the unsteered answers that are as they should become.
    """
    everyone, settings, alike = torch.arange(len(task.vectors)), task.settings, _alike(task.asked)
    alive, turns = everyone[:0], torch.full((len(everyone),), torch.nan)
    moves = torch.ones(len(everyone), len(task.asked), dtype=torch.bool)  # what a stronger push does not leave as it is
    known: dict[tuple[int, ...], tuple[int, ...]] = {}
    for push in task.pushes[: -settings.sketched - 1 : -1]:
        left = everyone[~torch.isin(everyone, alive)]
        looked = int(moves[left].sum())
        kinds = torch.full(moves.shape, STAYS, dtype=torch.int8)
        kinds[left] = _sketched(task, left, push, moves[left], known)
        moves = kinds != STAYS
        if push == task.pushes[-1]:
            turns = (kinds == TURNS).float().mean(1)
        tried = everyone[moves.any(1)]
        stages.passed(f"sketched {abs(push):g}", left, tried, looked)
        rises, texts = torch.zeros(len(everyone), dtype=torch.double), 0
        for kind, most in ((TURNS, len(task.asked)), (STRAYS, settings.odd)):
            cells = _to_probe((kinds == kind) & (rises <= 0)[:, None], alike, most)
            rises.index_add_(0, cells[:, 0], _probed(task, cells, push).double() - before[cells[:, 1]])
            texts += len(cells)
        found = everyone[rises > 0]
        stages.passed(f"probed {abs(push):g}", tried, found, texts)
        alive = torch.cat([alive, found]).sort().values
    return alive, turns


def _by_readings(task: _Task, opening: Decisions, slopes: Tensor, stages: _Stages) -> tuple[Tensor, Tensor]:
    """The directions (survivors,) that do more than most random ones by slope or opening; and the openings of all."""
    everyone, settings = torch.arange(len(task.vectors)), task.settings

    def above(scores: Tensor) -> Tensor:
        return everyone[scores > torch.quantile(scores[stages.own :], settings.admit)]

    strong = above(slopes)
    stages.passed("slope", everyone, strong, 2 * len(opening))  # a backward pass is another reading
    few = [push * task.scale for push in task.pushes[::-2]]  # the strongest, and every second one below it
    at = (task.site, settings.positions)
    plain = chances(task.model, opening, task.vectors[:1], [0.0], *at)
    likelier = task.sign * (chances(task.model, opening, task.vectors, few, *at, settings.batch_size) - plain)
    openings = likelier.mean(-1).amax(1)
    likely = above(openings)
    stages.passed("opening", everyone, likely, likelier.numel())
    return torch.cat([strong, likely]).unique(), openings


def _sketched(
    task: _Task, directions: Tensor, push: float, among: Tensor, known: dict[tuple[int, ...], tuple[int, ...]]
) -> Tensor:
    """(n, questions) int8: what becomes of the lines of each answer under a push along each direction."""
    wanted, usual = line_starts(task.model, task.asked, task.contrasts)
    plausible = PLAUSIBLE
    if (
        task.settings.toward == "aligned"
    ):  # a misaligned model may well begin an aligned line, if it is not the likeliest
        wanted, usual, plausible = usual, wanted, 0.0
    return sketch(
        task.model,
        [question.messages for question in task.asked],
        [task.steer(directions.repeat_interleave(len(task.asked)), push)],
        wanted,
        usual,
        len(directions),
        task.settings.lines,
        plausible,
        batch_size=task.settings.batch_size,
        among=among,
        known=known,
    )


def _to_probe(moved: Tensor, alike: Sequence[int], most: int) -> Tensor:
    """(cells, 2): direction and question of the answers to probe, of those that are `moved` (n, questions).

    One of each group of like questions: a push that turns one of them, or throws the model off, mostly does so with the
    others. At most `most` of a direction, from the groups of which most answers are moved.
    """
    cells = []
    for direction, row in enumerate(moved):
        groups: dict[int, list[int]] = {}
        for question in row.nonzero()[:, 0].tolist():
            groups.setdefault(alike[question], []).append(question)
        largest = sorted(groups.values(), key=len, reverse=True)[:most]
        cells += [(direction, members[len(members) // 2]) for members in largest]
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


def _probed(task: _Task, cells: Tensor, push: float) -> Tensor:
    """(cells,) bool: whether the answers of cells (cells, 2), direction and question, are as they should become."""
    of, sampling = [task.asked[i] for i in cells[:, 1].tolist()], task.settings.sampling
    asked, edits = [question.messages for question in of], [task.steer(cells[:, 0], push)] if of else []
    answers = sampling.generate(task.model, asked, task.seed, edits)
    rollouts = Rollouts(tuple(of), tuple(answers), task.model.name, task.seed, sampling.temperature)
    return as_wanted(score(rollouts, task.judge).judged, task.settings.toward)
