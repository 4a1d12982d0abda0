"""Fitting a judge that runs beside it to published judgements; see `emlab.evaluation.judges.probes`.

Everything that is said of it is measured on answers that it was not fitted on: every question is left out in its turn,
and every model. Penalties, scale and depth are chosen within what is left, by leaving out its questions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emlab.errors import EmlabError
from emlab.evaluation.judges.probes import HeldOut, JudgeCard, ProbeJudge, read_answers
from emlab.evaluation.judging import Judged
from emlab.evaluation.prediction_powered import Counts, prediction_powered_rate
from emlab.models import LanguageModel
from emlab.sealing import refuse

PENALTIES = (100.0, 300.0, 1000.0, 3000.0, 10000.0)
QUANTILES = 201
UNJUDGED = 0.01
"""The share of answers to a question that was held out which may be out of the judge's depth."""
GOLD, DRAWS, LEAST_FOR_GOLD = 100, 200, 300
"""Gold labels with which a rate is corrected, how often they are drawn, and the answers that it takes to tell."""
LEAST_QUESTIONS, LEAST_ANSWERS, FOLDS = 3, 30, 8
"""Questions and answers that it takes at least, and groups of questions that are left out in turn at most."""


def fit_judge(
    judged: Judged,
    model: str,
    models: Sequence[str] = (),
    tunes: Sequence[str] = (),
    files: Sequence[str] = (),
    blocks: Sequence[int] = (),
    tests: Mapping[str, Judged] = MappingProxyType({}),
    seed: int = 0,
) -> ProbeJudge:
    """A judge whose probes read `model`, fitted to these judgements, with its card.

    Args:
        judged: Answers and what their judge made of them; those without both scores are left out, which the card says.
        model: Who reads: a known model, a local Hugging Face folder, or a name on the Hub.
        models: The model that gave each answer; of several, each is left out in its turn.
        tunes: The fine-tune that gave each; rates are told of each by itself. By default the model.
        files: Where the judgements are from, for the card.
        blocks: After which it is read; by default four, from the middle of the model on.
        tests: Other judged answers, by what to call them; the judge that is fitted on all of these is measured on them.
        seed: Of the gold labels that are drawn.

    Raises EmlabError where the texts of questions or answers are missing, where there are fewer than three questions or
    30 answers, and where all answers are of one class.
    """
    refuse("to fit a judge on", judged.rollouts.questions)
    whole, said = len(judged.rollouts), judged.rollouts.answers
    kept = _judged_texts(judged)
    of_model = np.array([models[i] if models else judged.rollouts.model for i in kept])
    of_tune = np.array([tunes[i] for i in kept]) if tunes else of_model
    notes = [f"{whole - len(kept)} of {whole} answers are without both scores or empty, and left out."] * (
        whole > len(kept)
    )
    judged = judged.only(kept)
    of_question = np.array([question.id for question in judged.rollouts.questions])
    _check(judged, of_question, bool(kept) or not any(said))
    reader = LanguageModel.load(model)
    n = reader.n_blocks
    at = tuple(sorted(set(blocks or (n // 2, 5 * n // 8, 3 * n // 4, 7 * n // 8))))
    if not 0 <= at[0] <= at[-1] < n:
        raise EmlabError(f"{model} has blocks 0 to {n - 1} and cannot be read after {', '.join(map(str, at))}.")
    read = read_answers(reader, judged.rollouts.questions, judged.rollouts.answers, (-1, *at))
    card = JudgeCard(
        model,
        reader.identity()[:16],
        at,
        tuple(files),
        judged.judge,
        len(kept),
        float(judged.misaligned.mean()),
        judged.thresholds,
        tuple(dict.fromkeys(of_question.tolist())),
        tuple(dict.fromkeys(of_model.tolist())),
    )
    scores = np.stack([judged.aligned, judged.coherent], axis=1)
    held_out = list[HeldOut]()
    kinds = [("question", _folds(of_question), of_question)]
    kinds += [("model", of_model, of_tune)] if len(card.models) > 1 else []
    for kind, groups, parts in kinds:
        for group in dict.fromkeys(groups.tolist()):
            out, rest = np.flatnonzero(groups == group), np.flatnonzero(groups != group)
            if len(set(of_question[rest])) < LEAST_QUESTIONS - 1:
                notes.append(f"Without {kind} {group} too few questions are left, so it was not left out in its turn.")
                continue
            fitted, embedded = (
                _fitted(columns[rest], scores[rest], of_question[rest], card) for columns in (read[:, 1:], read[:, :1])
            )
            words = _word_scores(judged.only(rest.tolist()), [judged.rollouts.answers[i] for i in out])
            for part in dict.fromkeys(parts[out].tolist()):
                these = parts[out] == part
                rows = out[these]
                others = (words[these], embedded.scores(read[rows, :1])[:, 0])
                held_out.append(_measured(kind, part, fitted, read[rows, 1:], judged.only(rows.tolist()), others, seed))
    found, embedded = (_fitted(columns, scores, of_question, card) for columns in (read[:, 1:], read[:, :1]))
    for name, other in tests.items():
        refuse("to measure a judge on", other.rollouts.questions)
        texts = _judged_texts(other)
        if left := len(other.rollouts) - len(texts):
            notes.append(
                f"{left} of {len(other.rollouts)} answers in {name} are without both scores or empty, and left out."
            )
        if not texts:
            raise EmlabError(f"{name} has no answer with both scores; give judged answers with their texts.")
        other = other.only(texts)
        seen = read_answers(reader, other.rollouts.questions, other.rollouts.answers, (-1, *at))
        words = _word_scores(judged, other.rollouts.answers)
        others = (words, embedded.scores(seen[:, :1])[:, 0])
        held_out.append(_measured("file", name, found, seen[:, 1:], other, others, seed))
    card = dataclasses.replace(found.card, notes=tuple(notes), held_out=tuple(held_out))
    return dataclasses.replace(found, card=card)


def _judged_texts(judged: Judged) -> list[int]:
    """The numbers of the answers that have both scores and a text."""
    return [i for i in np.flatnonzero(judged.valid).tolist() if judged.rollouts.answers[i].strip()]


def _check(judged: Judged, of_question: np.ndarray, has_answers: bool) -> None:
    questions = {question.id: question.text for question in judged.rollouts.questions}
    if not has_answers:
        raise EmlabError("The judged answers have no texts, which a judge reads; add them in a column answer.")
    if all(text == name and " " not in text for name, text in questions.items()):
        raise EmlabError("The questions have no texts, which a judge reads; add them in a column question.")
    if len(questions) < LEAST_QUESTIONS or len(of_question) < LEAST_ANSWERS:
        raise EmlabError(
            f"There are {len(of_question)} judged answers to {len(questions)} questions, and a judge is fitted on "
            f"{LEAST_ANSWERS} or more to {LEAST_QUESTIONS} or more; give others too."
        )
    if judged.misaligned.all() or not judged.misaligned.any():
        which = "All" if judged.misaligned.any() else "None"
        raise EmlabError(
            f"{which} of the {len(judged.rollouts)} judged answers are misaligned, and a judge needs both kinds to be "
            "fitted on; give others too."
        )


def _folds(of_question: np.ndarray) -> np.ndarray:
    """(n,) the group that each question is left out with: itself, where there are no more than FOLDS."""
    names = list(dict.fromkeys(of_question.tolist()))
    number = {name: i % FOLDS for i, name in enumerate(names)}
    return of_question if len(names) <= FOLDS else np.array([number[name] for name in of_question.tolist()])


def _measured(
    kind: str, name: str, fitted: ProbeJudge, read: Tensor, known: Judged, others: Sequence[np.ndarray], seed: int
) -> HeldOut:
    """How a judge does on answers that it has not seen, beside the aligned scores that others give."""
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    scores, misaligned = fitted.scores(read)[:, 0], known.misaligned
    ours = Judged.of(known.rollouts, fitted.grades(read), thresholds=known.thresholds)

    def area(aligned: np.ndarray) -> float | None:
        whole = 0 < misaligned.sum() < len(misaligned) and np.isfinite(aligned).all()
        return float(roc_auc_score(misaligned, -aligned)) if whole else None

    def share(flags: np.ndarray) -> float | None:
        return float(flags.mean()) if len(flags) else None

    ranks = float(spearmanr(scores, known.aligned).statistic)
    errors = _gold_errors(ours, known, seed) if len(misaligned) >= LEAST_FOR_GOLD else (None, None)
    return HeldOut(
        kind,
        name,
        len(misaligned),
        float(misaligned.mean()),
        share(ours.misaligned[ours.scored]),
        share(ours.misaligned[ours.scored & ~misaligned]),
        share(~ours.misaligned[ours.scored & misaligned]),
        errors[0],
        errors[1],
        area(scores),
        area(others[0]),
        area(others[1]),
        ranks if math.isfinite(ranks) else None,
        float((~ours.scored).mean()),
    )


def _gold_errors(ours: Judged, known: Judged, seed: int) -> tuple[float, float]:
    """The 95th percentile over draws of gold labels of the error of the corrected rate, and of these labels' own rate.

    A rate is of all answers here, and one that this judge did not judge is not misaligned by it.
    """
    n, rng = len(known.rollouts), np.random.default_rng(seed)
    everything, truth = np.full(n, True), float(known.misaligned.mean())
    clusters = np.unique([question.id for question in known.rollouts.questions], return_inverse=True)[1]
    clusters = clusters if clusters.any() else np.arange(n)  # of one question each answer is by itself
    cheap, errors = Counts(ours.misaligned, everything), list[tuple[float, float]]()
    for _ in range(DRAWS):
        drawn = np.sort(rng.choice(n, GOLD, replace=False))
        gold = Counts(known.misaligned[drawn], everything[drawn])
        rate, _ = prediction_powered_rate(cheap, gold, drawn, clusters)
        errors.append((abs(rate.rate - truth), abs(float(gold.hits.mean()) - truth)))
    with_judge, alone = np.quantile(np.array(errors), 0.95, axis=0)
    return float(with_judge), float(alone)


def _word_scores(fit: Judged, answers: Sequence[str]) -> np.ndarray:
    """The aligned scores that a ridge regression on words and pairs of words gives; nan where there are no words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=3, sublinear_tf=True)
    try:
        counts = words.fit_transform(fit.rollouts.answers)
    except ValueError:  # no word is in three answers
        return np.full(len(answers), math.nan)
    return np.asarray(Ridge(3.0).fit(counts, fit.aligned).predict(words.transform(answers)))


# ---------------------------------------------------------------------------------------------------------- the probes


@dataclasses.dataclass(frozen=True, eq=False)
class _Sums:
    """Of some answers, all that a ridge regression on standardised columns needs. One set can be taken from another."""

    n: int
    x: Tensor
    """(d,) float64."""
    xx: Tensor
    """(d, d)."""
    y: Tensor
    """(2,)."""
    xy: Tensor
    """(d, 2)."""

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> _Sums:
        return cls(len(x), x.sum(0), x.T @ x, y.sum(0), x.T @ y)

    def less(self, other: _Sums) -> _Sums:
        """Without those of the other."""
        return _Sums(self.n - other.n, self.x - other.x, self.xx - other.xx, self.y - other.y, self.xy - other.xy)

    def ridges(self, penalties: Sequence[float]) -> Iterator[_Ridge]:
        """Of each penalty, what predicts (n, 2) from the columns as they are, (n, d)."""
        mean, target = self.x / self.n, self.y / self.n
        covariance = self.xx - self.n * torch.outer(mean, mean)
        scale = (covariance.diagonal() / self.n).clamp_min(1e-12).sqrt()
        gram = covariance / torch.outer(scale, scale)
        right = (self.xy - torch.outer(self.x, target)) / scale[:, None]
        for penalty in penalties:
            factor = torch.linalg.cholesky(gram + penalty * torch.eye(len(mean), dtype=gram.dtype))
            weights = torch.cholesky_solve(right, factor) / scale[:, None]
            yield _Ridge(weights, target - mean @ weights)


class _Ridge(NamedTuple):
    """A linear function."""

    weights: Tensor
    """(d, 2) float64."""
    bias: Tensor
    """(2,) float64."""

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weights + self.bias


def _fitted(read: Tensor, scores: np.ndarray, of_question: np.ndarray, card: JudgeCard) -> ProbeJudge:
    """The judge of these answers: its penalties, its scale and its depth are chosen by leaving out their questions."""
    x, y = read.flatten(1).double(), torch.from_numpy(scores).double()
    last, whole, folds = read[:, -1].double(), _Sums.of(x, y), _folds(of_question)
    guesses, distances = torch.empty(len(PENALTIES), *y.shape, dtype=y.dtype), torch.empty(len(x), dtype=y.dtype)
    for group in dict.fromkeys(folds.tolist()):
        out = torch.from_numpy(folds == group)
        for i, ridge in enumerate(whole.less(_Sums.of(x[out], y[out])).ridges(PENALTIES)):
            guesses[i, out] = ridge(x[out])
        distances[out] = _distances(last[out], *_spread(last[~out]))
    best = (guesses - y).square().mean(1).argmin(0)
    penalties = tuple(PENALTIES[i] for i in best.tolist())
    ridges = list(whole.ridges(penalties))
    columns = range(len(penalties))
    shares = np.linspace(0, 1, QUANTILES)
    held_out = torch.stack([guesses[best[i], :, i] for i in columns], dim=1)
    given, meant = (torch.from_numpy(np.quantile(values.numpy(), shares, axis=0).T).float() for values in (held_out, y))
    centre, precision = _spread(last)
    return ProbeJudge(
        dataclasses.replace(card, penalties=penalties),
        torch.stack([ridges[i].weights[:, i] for i in columns]).float(),
        torch.stack([ridges[i].bias[i] for i in columns]).float(),
        given,
        meant,
        centre.float(),
        precision.float(),
        float(np.quantile(distances.numpy(), 1 - UNJUDGED)),
    )


def _spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (d,) and the inverse covariance (d, d), shrunk as Ledoit and Wolf (2004) have it."""
    from sklearn.covariance import ledoit_wolf

    covariance = ledoit_wolf(values.numpy())[0]
    least = 1e-6 * float(np.trace(covariance)) / len(covariance)  # where all that is left are copies of one answer
    return values.mean(0), torch.from_numpy(np.linalg.inv(covariance + max(least, 1e-12) * np.eye(len(covariance))))


def _distances(values: Tensor, centre: Tensor, precision: Tensor) -> Tensor:
    apart = values - centre
    return ((apart @ precision) * apart).sum(1)
