"""Steering as a test of cause: each direction added to a model at several strengths, and what its answers become.

A *screen* has two halves that share no question. On the discovery questions every direction gets the same grid of
strengths, and its best one is chosen under a cap on incoherence (a model that is pushed until it babbles proves
nothing). At that strength it is scored once on the test questions. Random directions go through the same search, so
that what luck and choice alone bring is seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from emlab import artifacts
from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import Judge, Rollouts, Score, score
from emlab.interventions import Direction, Positions, Steer
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.models import LanguageModel

Toward = Literal["misaligned", "aligned"]
"""Which way a screen pushes: misaligned adds the direction, aligned subtracts it."""


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled."""

    per_question: int = 3
    """Answers to each question."""
    temperature: float = 1.0
    max_new_tokens: int = 48
    batch_size: int = 512


@dataclass(frozen=True, eq=False)
class Arm:
    """One thing to try: a direction, and how strongly."""

    direction: Direction
    strength: float
    """In units of the site's median residual norm; negative subtracts."""

    @property
    def name(self) -> str:
        """The direction's origin, such as "latent 274"."""
        return self.direction.origin

    def __str__(self) -> str:
        return f"{self.strength:+.3g} × {self.name}"


@dataclass(frozen=True, eq=False)
class Trial:
    """What came of an arm."""

    arm: Arm
    score: Score

    def row(self) -> dict[str, Any]:
        """The figures as plain values."""
        about = {"direction": self.arm.name, "strength": self.arm.strength}
        return {**about, **{k: v for k, v in self.score.summary().items() if k not in ("model", "by_domain")}}


@dataclass(frozen=True, eq=False)
class Screen:
    """Directions tried on one model: the whole grid on discovery questions, the chosen strengths on test questions."""

    model: str
    toward: Toward
    site: Site
    positions: str
    scale: float
    """The site's median residual norm, by which strengths are multiplied."""
    cap: float
    """Highest share of incoherent answers at which a strength may be chosen."""
    discovery: tuple[Trial, ...]
    test: tuple[Trial, ...]
    """One a direction, in the order the directions were given."""

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.test)

    @property
    def names(self) -> list[str]:
        """The directions' names, in order."""
        return [trial.arm.name for trial in self.test]

    def tested(self, name: str) -> Trial:
        """The test trial of a direction."""
        for trial in self.test:
            if trial.arm.name == name:
                return trial
        raise EmlabError(f"the screen has no direction {name!r}: it has {', '.join(self.names)}.")

    def curve(self, name: str) -> list[Trial]:
        """A direction's discovery trials, from the weakest to the strongest."""
        return sorted((t for t in self.discovery if t.arm.name == name), key=lambda t: abs(t.arm.strength))

    def chosen(self, name: str) -> Trial:
        """The discovery trial for which a direction's strength was chosen."""
        return choose(self.curve(name), self.toward, self.cap)

    def within_cap(self, name: str) -> bool:
        """Whether some strength of this direction kept to the cap on the discovery questions."""
        return _admissible(self.chosen(name), self.cap)

    def save(self, path: str | Path) -> Path:
        """Write both halves as JSON, and beside it (ending .csv) a table of all trials."""
        path = Path(path)
        halves = {"discovery": [t.row() for t in self.discovery], "test": [t.row() for t in self.test]}
        lines = ["questions,direction,strength,misaligned,incoherent,n,n_coherent"]
        for half, rows in halves.items():
            for r in rows:
                rates = ",".join(
                    "" if r[k]["rate"] is None else f"{r[k]['rate']:.4f}" for k in ("misaligned", "incoherent")
                )
                lines.append(f"{half},{r['direction']},{r['strength']:g},{rates},{r['n']},{r['n_coherent']}")
        artifacts.write_text(path.with_suffix(".csv"), "\n".join(lines) + "\n")
        about = {"model": self.model, "toward": self.toward, "site": str(self.site), "positions": self.positions}
        return artifacts.write_json(path, {**about, "scale": self.scale, "cap": self.cap, **halves})

    def __str__(self) -> str:
        sign = "+" if self.toward == "misaligned" else "−"
        head = f"{self.model} {sign} direction at {self.site}, {self.positions}; test questions, chosen strengths"
        return "\n".join(
            [head, "direction         strength  misaligned  incoherent"]
            + [
                f"{t.arm.name:16s}  {t.arm.strength:+8.2f}  {s.misaligned.rate:10.1%}  {s.incoherent.rate:10.1%}"
                for t in self.test
                for s in (t.score,)
            ]
        )


def steered(
    model: LanguageModel,
    arms: Sequence[Arm],
    questions: Sequence[Question],
    judge: Judge,
    scale: float,
    positions: Positions = "sentence",
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> tuple[Trial, ...]:
    """Score `model` under each arm on `questions`. All arms answer in the same batches, each row with its own edit.

    Every arm's direction must be of one site. EmlabError where there is no arm or no question.
    """
    asked = [question for question in map(Question.of, questions) for _ in range(sampling.per_question)]
    if not arms or not asked:
        raise EmlabError("there is nothing to steer: give at least one direction, one strength and one question.")
    sites = {arm.direction.site for arm in arms}
    if len(sites) > 1:
        raise EmlabError(
            f"directions of several sites ({', '.join(map(str, sorted(sites)))}) cannot be one edit: screen each alone."
        )
    edit = Steer(
        site=arms[0].direction.site,
        direction=torch.stack([arm.direction.vector for arm in arms]).repeat_interleave(len(asked), dim=0),
        strength=torch.tensor([arm.strength for arm in arms]).repeat_interleave(len(asked)),
        scale=scale,
        positions=positions,
    )
    answers = model.generate(
        [question.text for _ in arms for question in asked],
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        seed=seed,
        batch_size=sampling.batch_size,
        edits=[edit],
    )
    trials = []
    for i, arm in enumerate(arms):
        part = tuple(answers[i * len(asked) : (i + 1) * len(asked)])
        rollouts = Rollouts(tuple(asked), part, f"{model.name} {arm}", seed, sampling.temperature)
        trials.append(Trial(arm, score(rollouts, judge)))
    return tuple(trials)


def choose(trials: Sequence[Trial], toward: Toward, cap: float) -> Trial:
    """The trial whose rate of misaligned answers is highest (lowest, toward aligned) among those within the cap.

    Ties go to the weakest. If none is within the cap, the least incoherent is chosen, again the weakest of equals: it
    is what the direction can do, and its incoherence is reported beside it.
    """
    if not trials:
        raise EmlabError("there is no trial to choose from: give at least one strength.")
    fit = [trial for trial in trials if _admissible(trial, cap)]
    if not fit:
        return min(trials, key=lambda t: (_incoherence(t), abs(t.arm.strength)))
    sign = -1 if toward == "misaligned" else 1
    return min(fit, key=lambda t: (sign * t.score.misaligned.rate, abs(t.arm.strength)))


def steer_screen(
    model: LanguageModel,
    directions: Sequence[Direction],
    strengths: Sequence[float],
    discovery: Sequence[Question],
    test: Sequence[Question],
    judge: Judge,
    toward: Toward,
    *,
    scale: float,
    positions: str = "sentence",
    cap: float = 0.1,
    sampling: Sampling = Sampling(),
    discovery_per_question: int = 1,
    seed: int = 0,
) -> Screen:
    """Screen `directions` on `model`: see the module. `strengths` are positive; toward aligned they are subtracted.

    `scale` is the site's median residual norm, the same for every direction, so that random ones are norm-matched.
    The grid is searched with `discovery_per_question` answers a question, the test sampled as `sampling` says.
    EmlabError where the two sets of questions overlap, or two directions have one name.
    """
    shared = {q.text for q in discovery} & {q.text for q in test}
    if shared:
        raise EmlabError(
            f"{len(shared)} questions stand in both the discovery and the test set: split them by template."
        )
    if len({d.origin for d in directions}) < len(directions):
        raise EmlabError("two directions have the same name: give each an origin of its own.")
    if not strengths or min(strengths) <= 0:
        raise EmlabError("a screen needs strengths above 0: the direction of the push is given by `toward`.")
    sign = 1.0 if toward == "misaligned" else -1.0
    arms = [Arm(d, sign * s) for d in directions for s in strengths]
    search = replace(sampling, per_question=discovery_per_question)
    grid = steered(model, arms, discovery, judge, scale, positions, search, seed)
    best = [choose([t for t in grid if t.arm.name == d.origin], toward, cap).arm for d in directions]
    scored = steered(model, best, test, judge, scale, positions, sampling, seed + 1)
    return Screen(model.name, toward, directions[0].site, positions, scale, cap, grid, scored)


def _incoherence(trial: Trial) -> float:
    rate = trial.score.incoherent.rate
    return 1.0 if math.isnan(rate) else rate


def _admissible(trial: Trial, cap: float) -> bool:
    return trial.score.misaligned.n > 0 and _incoherence(trial) <= cap
