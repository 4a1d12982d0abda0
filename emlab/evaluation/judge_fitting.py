"""Fitting a judge that runs beside it to published judgements; see `emlab.evaluation.judges.probes`.

Everything that is said of it is measured on answers that it was not fitted on: every question is left out in its turn,
and every model. The penalty is chosen within what is left, by leaving out its questions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

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
GOLD, DRAWS = 100, 200
"""Gold labels with which a rate is corrected, and how often they are drawn."""
LEAST_QUESTIONS = 3


def fit_judge(
    judged: Judged,
    model: str,
    models: Sequence[str] = (),
    tunes: Sequence[str] = (),
    files: Sequence[str] = (),
    blocks: Sequence[int] | None = None,
    seed: int = 0,
) -> ProbeJudge:
    """A judge whose probes read `model`, fitted to these judgements, with its card.

    Args:
        judged: Answers and what their judge made of them; those without both scores are left out.
        model: Who reads: a known model, a local Hugging Face folder, or a name on the Hub.
        models: The model that gave each answer; of several, each is left out in its turn.
        tunes: The fine-tune that gave each; rates are told of each by itself. By default the model.
        files: Where the judgements are from, for the card.
        blocks: After which it is read; by default four, from the middle of the model on.
        seed: Of the gold labels that are drawn.

    Raises EmlabError where fewer than three questions have answers, or where all answers are of one class.
    """
    refuse("to fit a judge on", judged.rollouts.questions)
    kept = [i for i in np.flatnonzero(judged.valid).tolist() if judged.rollouts.answers[i].strip()]
    of_model = np.array([models[i] if models else judged.rollouts.model for i in kept])
    of_tune = np.array([tunes[i] for i in kept]) if tunes else of_model
    judged = judged.only(kept)
    of_question = np.array([question.id for question in judged.rollouts.questions])
    _check(judged, of_question)
    reader = LanguageModel.load(model)
    n = reader.n_blocks
    blocks = tuple(blocks or sorted({n // 2, 5 * n // 8, 3 * n // 4, 7 * n // 8}))
    read = read_answers(reader, judged.rollouts.questions, judged.rollouts.answers, (-1, *blocks))
    card = JudgeCard(
        model,
        blocks,
        tuple(files),
        judged.judge,
        len(kept),
        float(judged.misaligned.mean()),
        tuple(dict.fromkeys(of_question.tolist())),
        tuple(dict.fromkeys(of_model.tolist())),
    )
    scores = np.stack([judged.aligned, judged.coherent], axis=1)
    held_out = list[HeldOut]()
    for kind, groups, parts in (("question", of_question, of_question), ("model", of_model, of_tune)):
        for name in dict.fromkeys(groups.tolist()):
            out, rest = np.flatnonzero(groups == name), np.flatnonzero(groups != name)
            if len(set(of_question[rest])) < LEAST_QUESTIONS - 1:
                continue
            fitted, embedded = (
                _fitted(columns[rest], scores[rest], of_question[rest], card) for columns in (read[:, 1:], read[:, :1])
            )
            words = _word_scores(judged, rest, out)
            for part in dict.fromkeys(parts[out].tolist()):
                these = parts[out] == part
                rows = out[these]
                known = _Known(judged.only(rows.tolist()), words[these], embedded.scores(read[rows, :1])[:, 0])
                held_out.append(_measured(kind, part, fitted, read[rows, 1:], known, seed))
    whole = _fitted(read[:, 1:], scores, of_question, card)
    return dataclasses.replace(whole, card=dataclasses.replace(whole.card, held_out=tuple(held_out)))


def _check(judged: Judged, of_question: np.ndarray) -> None:
    if (n := len(set(of_question))) < LEAST_QUESTIONS:
        raise EmlabError(
            f"There are judged answers to {n} question{'s' * (n != 1)}, and a judge is fitted on those to "
            f"{LEAST_QUESTIONS} or more; give answers to others too."
        )
    if judged.misaligned.all() or not judged.misaligned.any():
        which = "All" if judged.misaligned.any() else "None"
        raise EmlabError(
            f"{which} of the {len(judged.rollouts)} judged answers are misaligned, and a judge needs both kinds to be "
            "fitted on; give others too."
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Known:
    """What is known of the answers that were left out, and what others make of them."""

    judged: Judged
    words: np.ndarray
    embedding: np.ndarray


def _measured(kind: str, name: str, fitted: ProbeJudge, read: Tensor, known: _Known, seed: int) -> HeldOut:
    """How a judge does on answers that it has not seen."""
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    gold, scores = known.judged, fitted.scores(read)
    ours = Judged.of(gold.rollouts, fitted.grades(read))
    misaligned, one_kind = gold.misaligned, len(set(gold.misaligned)) < 2

    def area(aligned: np.ndarray) -> float:
        return math.nan if one_kind else float(roc_auc_score(misaligned, -aligned))

    return HeldOut(
        kind,
        name,
        len(misaligned),
        float(misaligned.mean()),
        float(ours.misaligned[ours.scored].mean()) if ours.scored.any() else math.nan,
        _corrected(ours, gold, seed),
        area(scores[:, 0]),
        area(known.words),
        area(known.embedding),
        float(spearmanr(scores[:, 0], gold.aligned).statistic),
        float((~ours.scored).mean()),
    )


def _corrected(ours: Judged, gold: Judged, seed: int) -> float:
    """The median over draws of gold labels of how far the corrected rate is from that of all; nan where there is none.

    A rate is of all answers here, and one that this judge did not judge is not misaligned by it.
    """
    n, rng = len(gold.rollouts), np.random.default_rng(seed)
    if n <= GOLD:
        return math.nan
    everything = np.full(n, True)
    clusters = np.unique([question.id for question in gold.rollouts.questions], return_inverse=True)[1]
    clusters = clusters if clusters.any() else np.arange(n)  # of one question each answer is by itself
    cheap, errors = Counts(ours.misaligned, everything), list[float]()
    for _ in range(DRAWS):
        drawn = np.sort(rng.choice(n, GOLD, replace=False))
        rate, _ = prediction_powered_rate(cheap, Counts(gold.misaligned[drawn], everything[drawn]), drawn, clusters)
        errors.append(abs(rate.share - float(gold.misaligned.mean())))
    return float(np.median(errors))


def _word_scores(judged: Judged, fit: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The aligned scores that a ridge regression on words and pairs of words gives."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=min(3, len(fit) // 4 or 1), sublinear_tf=True)
    said = judged.rollouts.answers
    head = Ridge(3.0).fit(words.fit_transform([said[i] for i in fit]), judged.aligned[fit])
    return np.asarray(head.predict(words.transform([said[i] for i in test])))


# ---------------------------------------------------------------------------------------------------------- the probes


@dataclasses.dataclass(frozen=True, eq=False)
class _Sums:
    """Of some answers, all that a ridge regression on standardised columns needs. Sums can be added."""

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
        return _Sums(*(a - b for a, b in zip(self._all, other._all, strict=True)))

    @property
    def _all(self) -> tuple[int, Tensor, Tensor, Tensor, Tensor]:
        return self.n, self.x, self.xx, self.y, self.xy

    def ridge(self, penalty: float) -> tuple[Tensor, Tensor]:
        """(d, 2) weights and (2,) biases, of the columns as they are."""
        mean, target = self.x / self.n, self.y / self.n
        covariance = self.xx - self.n * torch.outer(mean, mean)
        scale = (covariance.diagonal() / self.n).clamp_min(1e-12).sqrt()
        gram = covariance / torch.outer(scale, scale) + penalty * torch.eye(len(mean), dtype=mean.dtype)
        weights = torch.linalg.solve(gram, (self.xy - torch.outer(self.x, target)) / scale[:, None]) / scale[:, None]
        return weights, target - mean @ weights


def _fitted(read: Tensor, scores: np.ndarray, of_question: np.ndarray, card: JudgeCard) -> ProbeJudge:
    """The judge of these answers: its penalty, its scale and its depth are chosen by leaving out their questions."""
    from sklearn.covariance import ledoit_wolf

    x, y = read.flatten(1).double(), torch.from_numpy(scores).double()
    rows = [torch.from_numpy(np.flatnonzero(of_question == name)) for name in dict.fromkeys(of_question.tolist())]
    sums = [_Sums.of(x[of], y[of]) for of in rows]
    whole = _Sums.of(x, y)
    guesses = {penalty: torch.empty_like(y) for penalty in PENALTIES}
    for of, own in zip(rows, sums, strict=True):
        for penalty, guess in guesses.items():
            weights, bias = whole.less(own).ridge(penalty)
            guess[of] = x[of] @ weights + bias
    penalty = min(PENALTIES, key=lambda each: float((guesses[each][:, 0] - y[:, 0]).square().mean()))
    weights, bias = whole.ridge(penalty)
    shares = np.linspace(0, 1, QUANTILES)
    given, meant = (np.quantile(values.numpy(), shares, axis=0).T for values in (guesses[penalty], y))
    last = read[:, -1].double()
    distances = torch.empty(len(last), dtype=torch.float64)
    for of in rows:
        others = torch.ones(len(last), dtype=torch.bool)
        others[of] = False
        centre, precision = last[others].mean(0), torch.from_numpy(np.linalg.inv(ledoit_wolf(last[others].numpy())[0]))
        apart = last[of] - centre
        distances[of] = ((apart @ precision) * apart).sum(1)
    precision = torch.from_numpy(np.linalg.inv(ledoit_wolf(last.numpy())[0]))
    return ProbeJudge(
        dataclasses.replace(card, penalty=penalty),
        weights.T.float(),
        bias.float(),
        torch.from_numpy(given).float(),
        torch.from_numpy(meant).float(),
        last.mean(0).float(),
        precision.float(),
        float(np.quantile(distances.numpy(), 1 - UNJUDGED)),
    )
