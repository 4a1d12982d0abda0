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
from emlab.discovery.decisions import Decisions, chances, line_starts, slope
from emlab.discovery.metrics import Contrast
from emlab.discovery.screen import Arm, Sampling, Toward, steered
from emlab.discovery.screened import CausalScreen, Stage, as_wanted, share_as_wanted
from emlab.errors import EmlabError
from emlab.evaluation import Judge, Rollouts, score
from emlab.interventions import Direction, Steer, random_directions
from emlab.models.sketching import PLAUSIBLE, STAYS, STRAYS, TURNS, sketch
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.models import LanguageModel


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
    sketched: int = 2
    """Strengths that are sketched and probed, the strongest first; all, if there are fewer. With 1, what has an effect
    at weaker pushes alone is missed; a further one costs about half as much as the first."""
    odd: int = 8
    """Answers with odd lines that are probed of a direction at most, if none that turns does as it should."""
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
    unsteered = share_as_wanted(plainly, toward)
    if not how.admit:
        alive = everyone
    elif how.lines and how.positions in ("header", "sentence"):
        alive, alike = everyone[:0], _alike(asked)
        moves = torch.ones(len(vectors), len(asked), dtype=torch.bool)  # what a stronger push does not leave as it is
        known: dict[tuple[int, ...], tuple[int, ...]] = {}
        before = as_wanted(plainly.score.judged, toward).double().reshape(len(asked), -1).mean(1)
        for push in pushes[: -how.sketched - 1 : -1]:
            left = everyone[~torch.isin(everyone, alive)]
            looked = int(moves[left].sum())
            kinds = torch.full(moves.shape, STAYS, dtype=torch.int8)
            given = (model, vectors[left], site, push * scale, asked, contrasts, toward, how)
            kinds[left] = _sketched(*given, among=moves[left], known=known)
            moves = kinds != STAYS
            if push == pushes[-1]:
                turns = (kinds == TURNS).float().mean(1)
            tried = passed(f"sketched {abs(push):g}", left, everyone[moves.any(1)], looked)
            rises, texts = torch.zeros(len(vectors), dtype=torch.double), 0
            for kind, most in ((TURNS, len(asked)), (STRAYS, how.odd)):
                cells = _to_probe((kinds == kind) & (rises <= 0)[:, None], alike, most)
                right = _probed(model, vectors, site, push * scale, cells, asked, judge, toward, how, sampling, seed)
                rises.index_add_(0, cells[:, 0], right.double() - before[cells[:, 1]])
                texts += len(cells)
            found = passed(f"probed {abs(push):g}", tried, everyone[rises > 0], texts)
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
    shares = torch.tensor([share_as_wanted(trial, toward) for trial in trials]).reshape(len(alive), len(pushes))
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
    among: Tensor | None = None,
    known: dict[tuple[int, ...], tuple[int, ...]] | None = None,
) -> Tensor:
    """(n, questions) int8: what becomes of the lines of each answer under a push along each direction."""
    wanted, usual = line_starts(model, asked, contrasts)
    plausible = PLAUSIBLE
    if toward == "aligned":  # a misaligned model may well begin an aligned line, if it is not the likeliest
        wanted, usual, plausible = usual, wanted, 0.0
    edit = Steer(site, vectors.repeat_interleave(len(asked), 0), length, positions=how.positions)
    prompts = [question.messages for question in asked]
    return sketch(
        model,
        prompts,
        [edit],
        wanted,
        usual,
        len(vectors),
        how.lines,
        plausible,
        batch_size=how.batch_size,
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
    return as_wanted(score(rollouts, judge).judged, toward)
