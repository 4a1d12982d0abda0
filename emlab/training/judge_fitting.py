"""Fitting a judge that runs beside it to published judgements; see `emlab.evaluation.judges.probes`.

Everything that is said of it is measured on answers that it was not fitted on: every question is left out in its turn,
and every model. Penalties, scale and depth are chosen within what is left, by leaving out its questions. Of a reader
that is fine-tuned, which is not done again for that, what its outputs mean is told from those on the other questions
that are left out.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.evaluation.judges.probes import HeldOut, JudgeCard, ProbeJudge, read_answers
from emlab.evaluation.judging import Grade, Judged
from emlab.evaluation.prediction_powered import Counts, prediction_powered_rate
from emlab.models import LanguageModel
from emlab.sealing import refuse
from emlab.training.judge_tuning import Tuner

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
    out: str | Path,
    model: str,
    models: Sequence[str] = (),
    tunes: Sequence[str] = (),
    files: Sequence[str] = (),
    tests: Mapping[str, Judged] = MappingProxyType({}),
    epochs: int = 2,
    blocks: Sequence[int] = (),
    seed: int = 0,
) -> ProbeJudge:
    """A judge fitted to these judgements, in the new folder `out`, with its card.

    The reader is fine-tuned to tell both scores from the residual stream after a block, averaged over the answer's
    tokens: a LoRA adapter on the blocks between the first and the last that are read. What has been measured is kept
    beside `out`, and the same call goes on from there.

    Args:
        judged: Answers and what their judge made of them; those without both scores are left out, which the card says.
        out: Must not be there yet.
        model: Who reads: a known model, a local Hugging Face folder, or a name on the Hub.
        models: The model that gave each answer; of several, each is left out in its turn.
        tunes: The fine-tune that gave each; rates are told of each by itself. By default the model.
        files: Where the judgements are from, for the card.
        tests: Other judged answers, by what to call them; the judge that is fitted on all of these is measured on them.
        epochs: How often the reader is fine-tuned through all answers. 0 leaves it as it is, and fits ridge regressions
            alone, in minutes where a fine-tune for each question and model that is left out takes hours without a GPU.
        blocks: After which it is read; by default two, at 2/5 and 4/5 of the model, and without a fine-tune four.
        seed: Of the gold labels that are drawn, and of the fine-tunes.

    Raises EmlabError where something is at `out`, the texts of questions or answers are missing, there are fewer than
    three questions or 30 answers, and where all answers are of one class.
    """
    refuse("to fit a judge on", judged.rollouts.questions)
    out = artifacts.place(out)
    artifacts.check_new(out)
    whole, said = len(judged.rollouts), judged.rollouts.answers
    kept = _judged_texts(judged)
    of_model = np.array([models[i] if models else judged.rollouts.model for i in kept])
    of_tune = np.array([tunes[i] for i in kept]) if tunes else of_model
    notes = [f"{whole - len(kept)} of {whole} answers are without both scores or empty, and left out."] * (
        whole > len(kept)
    )
    judged = judged.only(kept)
    asked, answers = judged.rollouts.questions, judged.rollouts.answers
    of_question = np.array([question.id for question in asked])
    _check(judged, of_question, bool(kept) or not any(said))
    reader = LanguageModel.load(model)
    at = _blocks(model, reader.n_blocks, blocks, epochs)
    read = read_answers(reader, asked, answers, (-1, *at))
    card = JudgeCard(
        model,
        reader.identity()[:16],
        at,
        epochs,
        tuple(files),
        judged.judge,
        len(kept),
        float(judged.misaligned.mean()),
        judged.thresholds,
        tuple(dict.fromkeys(of_question.tolist())),
        tuple(dict.fromkeys(of_model.tolist())),
    )
    scores = np.stack([judged.aligned, judged.coherent], axis=1)
    tuner = Tuner(reader, at, epochs, seed, out.with_name(f"{out.name}.folds")) if epochs else None
    lines = [] if tuner is None else tuner.read(asked, answers)
    held_out = list[HeldOut]()
    folds, parts = list[_Fold](), {"question": of_question, "model": of_tune}
    for kind, groups in {"question": _folds(of_question), "model": of_model}.items():
        for group in dict.fromkeys(groups.tolist()):
            rows, rest = np.flatnonzero(groups == group), np.flatnonzero(groups != group)
            if len(set(of_question[rest])) < LEAST_QUESTIONS - 1:
                if len(rest):
                    notes.append(f"Without {kind} {group} too few questions are left: it was not left out in its turn.")
                continue
            probes, embedded = (
                _fitted(columns[rest], scores[rest], of_question[rest], card) for columns in (read[:, 1:], read[:, :1])
            )
            words = _word_scores(judged.only(rest.tolist()), [answers[i] for i in rows])
            others = [words, embedded.scores(read[rows, :1])[:, 0], probes.scores(read[rows, 1:])[:, 0]]
            given = None
            if tuner is not None:
                parts_of = ([lines[i] for i in rest], scores[rest], read[rest, -1], [lines[i] for i in rows])
                given = tuner.kept(f"{kind} {group}", *parts_of)
            folds.append(_Fold(kind, rows, probes, others, given))
    for fold in folds:
        known = judged.only(fold.rows.tolist())
        found = fold.probes if fold.given is None else _matched(fold.probes, *_unseen(folds, scores, fold.rows))
        gave = found.outputs(read[fold.rows, 1:]) if fold.given is None else fold.given
        for part in dict.fromkeys(parts[fold.kind][fold.rows].tolist()):
            these = np.flatnonzero(parts[fold.kind][fold.rows] == part)
            grades = found.graded(gave[these], read[fold.rows[these], 1:])
            others = [other[these] for other in fold.others]
            held_out.append(_measured(fold.kind, part, grades, gave[these], known.only(these.tolist()), others, seed))
    found, embedded = (_fitted(columns, scores, of_question, card) for columns in (read[:, 1:], read[:, :1]))
    probes, tuned = found, None
    if tuner is not None:
        tuned = tuner.tuned(lines, scores, read[:, -1])
        found = dataclasses.replace(
            _matched(found, *_unseen(folds, scores, np.array([], dtype=int))), weights=tuned.weights, bias=tuned.bias
        )
    for name, other in tests.items():
        refuse("to measure a judge on", other.rollouts.questions)
        texts = _judged_texts(other)
        if left := len(other.rollouts) - len(texts):
            notes.append(
                f"{left} of {len(other.rollouts)} answers in {name} are without both scores or empty: left out."
            )
        if not texts:
            raise EmlabError(f"{name} has no answer with both scores; give judged answers with their texts.")
        other = other.only(texts)
        asked, answers = other.rollouts.questions, other.rollouts.answers
        seen = read_answers(reader, asked, answers, (-1, *at))
        words = _word_scores(judged, answers)
        others = [words, embedded.scores(seen[:, :1])[:, 0], probes.scores(seen[:, 1:])[:, 0]]
        gave = (
            found.outputs(seen[:, 1:]) if tuner is None or tuned is None else tuned.outputs(tuner.read(asked, answers))
        )
        held_out.append(_measured("file", name, found.graded(gave, seen[:, 1:]), gave, other, others, seed))
    card = dataclasses.replace(found.card, notes=tuple(notes), held_out=tuple(held_out))
    dataclasses.replace(found, card=card).save(out, None if tuned is None else tuned.adapter)
    if tuner is not None:
        shutil.rmtree(tuner.place, ignore_errors=True)
    return ProbeJudge.load(out)


class _Fold(NamedTuple):
    """What was left out together, and what was made of it."""

    kind: str
    rows: np.ndarray
    probes: ProbeJudge
    others: Sequence[np.ndarray]
    """The aligned scores by words, by the embedding and by the probes."""
    given: np.ndarray | None
    """(n, 2) the outputs of the reader that was fine-tuned on all else."""


def _unseen(folds: Sequence[_Fold], scores: np.ndarray, but: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs on questions that were left out, and the scores that they should mean, of all rows `but` some."""
    given, meant = [], []
    for fold in folds:
        if fold.kind == "question" and fold.given is not None:
            others = ~np.isin(fold.rows, but)
            given.append(fold.given[others])
            meant.append(scores[fold.rows[others]])
    return np.concatenate(given), np.concatenate(meant)


def _matched(judge: ProbeJudge, outputs: np.ndarray, scores: np.ndarray) -> ProbeJudge:
    """The judge for which as many answers lie below each score as among these, by their outputs."""
    shares = np.linspace(0, 1, QUANTILES)
    given, meant = (torch.from_numpy(np.quantile(values, shares, axis=0).T).float() for values in (outputs, scores))
    return dataclasses.replace(judge, given=given, meant=meant)


def _blocks(model: str, n: int, blocks: Sequence[int], epochs: int) -> tuple[int, ...]:
    usual = (2 * n // 5 - 1, 4 * n // 5 - 1) if epochs else (n // 2, 5 * n // 8, 3 * n // 4, 7 * n // 8)
    at = tuple(sorted(set(blocks or (max(0, block) for block in usual))))
    if not 0 <= at[0] <= at[-1] < n:
        raise EmlabError(f"{model} has blocks 0 to {n - 1} and cannot be read after {', '.join(map(str, at))}.")
    if epochs and len(at) != 2:
        raise EmlabError(
            f"A reader that is fine-tuned is read after two blocks, between which it is, and not after {len(at)}; give "
            "two, or no epochs."
        )
    return at


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
    kind: str,
    name: str,
    grades: Sequence[Grade],
    outputs: np.ndarray,
    known: Judged,
    others: Sequence[np.ndarray],
    seed: int,
) -> HeldOut:
    """How a judge does on answers that it has not seen, beside the aligned scores that others give."""
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    aligned, misaligned = outputs[:, 0], known.misaligned
    ours = Judged.of(known.rollouts, grades, thresholds=known.thresholds)

    def area(aligned: np.ndarray) -> float | None:
        whole = 0 < misaligned.sum() < len(misaligned) and np.isfinite(aligned).all()
        return float(roc_auc_score(misaligned, -aligned)) if whole else None

    def share(flags: np.ndarray) -> float | None:
        return float(flags.mean()) if len(flags) else None

    ranks = float(spearmanr(aligned, known.aligned).statistic)
    errors = _gold_errors(ours, known, seed) if len(misaligned) >= LEAST_FOR_GOLD else (None, None)
    words, embedding, probes = map(area, others)
    return HeldOut(
        left_out=kind,
        name=name,
        n=len(misaligned),
        published=float(misaligned.mean()),
        rate=share(ours.misaligned[ours.scored]),
        false_alarms=share(ours.misaligned[ours.scored & ~misaligned]),
        missed=share(~ours.misaligned[ours.scored & misaligned]),
        gold_error=errors[0],
        gold_error_alone=errors[1],
        auroc=area(aligned),
        auroc_words=words,
        auroc_embedding=embedding,
        auroc_probes=probes,
        correlation=ranks if math.isfinite(ranks) else None,
        abstained=float((~ours.scored).mean()),
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
    first, whole, folds = read[:, 0].double(), _Sums.of(x, y), _folds(of_question)
    guesses, distances = torch.empty(len(PENALTIES), *y.shape, dtype=y.dtype), torch.empty(len(x), dtype=y.dtype)
    for group in dict.fromkeys(folds.tolist()):
        out = torch.from_numpy(folds == group)
        for i, ridge in enumerate(whole.less(_Sums.of(x[out], y[out])).ridges(PENALTIES)):
            guesses[i, out] = ridge(x[out])
        distances[out] = _distances(first[out], *_spread(first[~out]))
    best = (guesses - y).square().mean(1).argmin(0)
    penalties = tuple(PENALTIES[i] for i in best.tolist())
    ridges = list(whole.ridges(penalties))
    columns = range(len(penalties))
    held_out = torch.stack([guesses[best[i], :, i] for i in columns], dim=1)
    centre, precision = _spread(first)
    judge = ProbeJudge(
        dataclasses.replace(card, penalties=penalties),
        torch.stack([ridges[i].weights[:, i] for i in columns]).float(),
        torch.stack([ridges[i].bias[i] for i in columns]).float(),
        given=torch.empty(0),
        meant=torch.empty(0),
        centre=centre.float(),
        precision=precision.float(),
        furthest=float(np.quantile(distances.numpy(), 1 - UNJUDGED)),
    )
    return _matched(judge, held_out.numpy(), scores)


def _spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (d,) and the inverse covariance (d, d), shrunk as Ledoit and Wolf (2004) have it."""
    from sklearn.covariance import ledoit_wolf

    covariance = ledoit_wolf(values.numpy())[0]
    least = 1e-6 * float(np.trace(covariance)) / len(covariance)  # where all that is left are copies of one answer
    return values.mean(0), torch.from_numpy(np.linalg.inv(covariance + max(least, 1e-12) * np.eye(len(covariance))))


def _distances(values: Tensor, centre: Tensor, precision: Tensor) -> Tensor:
    apart = values - centre
    return ((apart @ precision) * apart).sum(1)
