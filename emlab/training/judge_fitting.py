"""Fitting a judge that runs beside it to published judgements; see `emlab.evaluation.judges.probes`.

What is said of it is measured on answers that it was not fitted on: every question is left out in its turn, and then
every model; no measurement leaves out both at once. Penalties, scale and depth are chosen within what is left, by
leaving out its questions. A reader is not fine-tuned once more for that: which score an output means is told from the
other questions that were left out, by readers that were fine-tuned on the one in question too.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emlab import artifacts
from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation.judges.probes import HeldOut, JudgeCard, ProbeJudge, read_answers, reader_of, rows_of, weights_of
from emlab.evaluation.judging import Grade, Judged
from emlab.evaluation.prediction_powered import Counts, prediction_powered_rate
from emlab.provenance import Ledger, command, provenance, versions
from emlab.sealing import refuse
from emlab.training.judge_tuning import Tuned, Tuner

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
    epochs: int = 1,
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
    fit = _Fit(judged, model, models, tunes, epochs, blocks, seed, out.with_name(f"{out.name}.folds"))
    others = {name: fit.unseen(name, other) for name, other in tests.items()}
    folds = fit.folds()
    held_out = [one for fold in folds for one in fit.measured(fold, folds)]
    judge, tuned = fit.whole(folds)
    held_out += [fit.on_file(name, other, judge, tuned) for name, other in others.items()]
    answers = artifacts.content_hash(judged)
    asked = {"answers": answers, "model": model, "epochs": epochs, "blocks": list(blocks), "seed": seed}
    card = dataclasses.replace(
        judge.card,
        fitted_on=tuple(files),
        notes=tuple(fit.notes),
        held_out=tuple(held_out),
        provenance={"command": command(), "versions": versions(), **provenance(asked, fit.ledger.processes())},
    )
    dataclasses.replace(judge, card=card).save(out, None if tuned is None else tuned.adapter)
    if fit.tuner is not None:
        fit.tuner.clear()
    return ProbeJudge.load(out)


class _Fit:
    """The judged answers, read, and the judges that are fitted to parts of them."""

    def __init__(
        self,
        judged: Judged,
        model: str,
        models: Sequence[str],
        tunes: Sequence[str],
        epochs: int,
        blocks: Sequence[int],
        seed: int,
        place: Path,
    ) -> None:
        self.seed, self.notes = seed, list[str]()
        self.ledger = Ledger(place / "processes.json" if epochs else None)
        kept = _judged_texts(judged)
        self._note_left_out("the file", len(judged.rollouts) - len(kept), len(judged.rollouts))
        of_model = np.array([models[i] if models else judged.rollouts.model for i in kept])
        of_tune = np.array([tunes[i] for i in kept]) if tunes else of_model
        _check_texts(judged, "the file")
        judged = judged.only(kept)
        self.judged, self.questions, self.answers = judged, judged.rollouts.questions, judged.rollouts.answers
        self.of_question = _same_question(self.questions)
        _check(judged, len(set(self.of_question)))
        self.groups = {"question": _folds(self.of_question), "model": of_model}
        """Of each answer, with which others it is left out."""
        ids = np.array([question.id for question in self.questions])
        self.parts = {"question": ids, "model": of_tune}
        """… and with which others it is told of, beside all of a model's."""
        self.scores = np.stack([judged.aligned, judged.coherent], axis=1)
        self.reader = reader_of(model)
        self.at = _blocks(model, self.reader.n_blocks, blocks, epochs)
        self.read = read_answers(self.reader, self.questions, self.answers, (-1, *self.at))
        """(n, 1 + sites, d_model): the embedding first."""
        self.card = JudgeCard(
            model,
            weights_of(self.reader),
            self.at,
            epochs,
            (),
            judged.judge,
            len(kept),
            float(judged.misaligned.mean()),
            judged.thresholds,
            tuple(dict.fromkeys(ids.tolist())),
            tuple(dict.fromkeys(of_model.tolist())) if len(models) else (),
        )
        self.tuner = Tuner(self.reader, self.at, epochs, seed, place) if epochs else None
        self.cached = [] if self.tuner is None else self.tuner.read(self.questions, self.answers)

    def unseen(self, name: str, other: Judged) -> Judged:
        """The answers in another file that the judge can be measured on: judged, with texts, and not fitted on."""
        refuse("to measure a judge on", other.rollouts.questions)
        _check_texts(other, name)
        kept, n = _judged_texts(other), len(other.rollouts)
        self._note_left_out(name, n - len(kept), n)
        fitted = {(question.text, answer) for question, answer in self.judged.rollouts}
        new = [i for i in kept if (other.rollouts.questions[i].text, other.rollouts.answers[i]) not in fitted]
        if known := len(kept) - len(new):
            self.notes.append(f"{known} of {n} answers in {name} were fitted on, to the same question, and left out.")
        if not new:
            raise EmlabError(
                f"{name} has no answer with both scores that was not fitted on; give other judged answers."
            )
        other = other.only(new)
        shared = {question.text for question in other.rollouts.questions} & {one.text for one in self.questions}
        if shared:
            self.notes.append(f"{len(shared)} of the questions in {name} were fitted on, with other answers.")
        rows_of(self.reader, other.rollouts.questions, other.rollouts.answers)  # what is too long is refused now
        return other

    def folds(self) -> list[_Fold]:
        """Each question, or group of them, and each of several models, left out in its turn."""
        found = list[_Fold]()
        for kind, groups in self.groups.items():
            for group in dict.fromkeys(groups.tolist()):
                rows, rest = np.flatnonzero(groups == group), np.flatnonzero(groups != group)
                if len(set(self.of_question[rest])) >= LEAST_QUESTIONS - 1:
                    found.append(self._without(kind, group, rows, rest))
                    self.ledger.write()
                elif len(rest):
                    self.notes.append(
                        f"Without {kind} {group} too few questions are left: it was not left out in its turn."
                    )
        return found

    def _without(self, kind: str, group: str, rows: np.ndarray, rest: np.ndarray) -> _Fold:
        probes, embedded = self._fitted(rest)
        given = None
        if self.tuner is not None:
            cached, out = ([self.cached[i] for i in some] for some in (rest, rows))
            given = self.tuner.kept(f"{kind} {group}", cached, self.scores[rest], self.read[rest, -1], out)
        words = _word_scores(self.judged.only(rest.tolist()), [self.answers[i] for i in rows])
        return _Fold(kind, rows, probes, _beside(words, embedded, probes, self.read[rows]), given)

    def measured(self, fold: _Fold, folds: Sequence[_Fold]) -> list[HeldOut]:
        """How it does on what was left out: by question, or the model's answers as a whole and by fine-tune."""
        judge, read = fold.probes, self.read[fold.rows, 1:]
        outputs = judge.outputs(read) if fold.given is None else fold.given
        if fold.given is not None:
            judge = _matched(judge, *_unseen(folds, self.scores, fold.rows))
        parts, found = self.parts[fold.kind][fold.rows], []
        told = [(part, np.flatnonzero(parts == part)) for part in dict.fromkeys(parts.tolist())]
        group = str(self.groups[fold.kind][fold.rows[0]])
        if fold.kind == "model" and [part for part, _ in told] != [group]:
            told.insert(0, (group, np.arange(len(parts))))
        for part, these in told:
            grades, others = judge.graded(outputs[these], read[these]), [other[these] for other in fold.others]
            known = self.judged.only(fold.rows[these].tolist())
            found.append(_measured(fold.kind, part, grades, outputs[these], known, others, self.seed))
        return found

    def whole(self, folds: Sequence[_Fold]) -> tuple[ProbeJudge, Tuned | None]:
        """The judge that is fitted on all, and its reader's fine-tune."""
        self.probes, self.embedded = self._fitted(np.arange(len(self.answers)))
        judge = self.probes
        if self.tuner is None:
            return judge, None
        tuned = self.tuner.tuned(self.cached, self.scores, self.read[:, -1])
        judge = _matched(judge, *_unseen(folds, self.scores, np.array([], dtype=int)))
        return dataclasses.replace(judge, weights=tuned.weights, bias=tuned.bias), tuned

    def on_file(self, name: str, other: Judged, judge: ProbeJudge, tuned: Tuned | None) -> HeldOut:
        """How the judge of all does on other judged answers."""
        asked, answers = other.rollouts.questions, other.rollouts.answers
        read = read_answers(self.reader, asked, answers, (-1, *self.at))
        if self.tuner is None or tuned is None:
            outputs = judge.outputs(read[:, 1:])
        else:
            outputs = tuned.outputs(self.tuner.read(asked, answers))
        others = _beside(_word_scores(self.judged, answers), self.embedded, self.probes, read)
        return _measured("file", name, judge.graded(outputs, read[:, 1:]), outputs, other, others, self.seed)

    def _fitted(self, rows: np.ndarray) -> tuple[ProbeJudge, ProbeJudge]:
        """Probes of the reader, and of its embedding."""
        sites, embedding = self.read[rows, 1:], self.read[rows, :1]
        probes = _fitted(sites, self.scores[rows], self.of_question[rows], self.card)
        return probes, _fitted(embedding, self.scores[rows], self.of_question[rows], self.card)

    def _note_left_out(self, where: str, left: int, n: int) -> None:
        if left:
            self.notes.append(f"{left} of {n} answers in {where} are without both scores or empty, and left out.")


class _Fold(NamedTuple):
    """What was left out together, and what was made of it."""

    kind: str
    rows: np.ndarray
    probes: ProbeJudge
    others: Sequence[np.ndarray]
    """The aligned scores by words, by the embedding and by the probes."""
    given: np.ndarray | None
    """(n, 2) the outputs of the reader that was fine-tuned on all else."""


def _beside(words: np.ndarray, embedded: ProbeJudge, probes: ProbeJudge, read: Tensor) -> list[np.ndarray]:
    """The aligned scores by words, by the embedding and by the probes of what was read, (n, 1 + sites, d_model)."""
    return [words, embedded.scores(read[:, :1])[:, 0], probes.scores(read[:, 1:])[:, 0]]


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
    if epochs < 0:
        raise EmlabError(f"A reader cannot be fine-tuned {epochs} times; give 1 or more, or 0 for none.")
    usual = (2 * n // 5 - 1, 4 * n // 5 - 1) if epochs else (n // 2, 5 * n // 8, 3 * n // 4, 7 * n // 8)
    at = tuple(sorted(set(blocks or (max(0, block) for block in usual))))
    if not 0 <= at[0] <= at[-1] < n:
        raise EmlabError(f"{model} has blocks 0 to {n - 1} and cannot be read after {', '.join(map(str, at))}.")
    if epochs and len(at) != 2:
        raise EmlabError(
            f"A reader that is fine-tuned is read after two blocks, between which it is, and not after {len(at)} of "
            f"the {n} of {model}; give two, another model, or no epochs."
        )
    return at


def _judged_texts(judged: Judged) -> list[int]:
    """The numbers of the answers that have both scores and a text."""
    return [i for i in np.flatnonzero(judged.valid).tolist() if judged.rollouts.answers[i].strip()]


def _check_texts(judged: Judged, name: str) -> None:
    if not any(answer.strip() for answer in judged.rollouts.answers):
        raise EmlabError(f"The judged answers in {name} have no texts, which a judge reads; add a column answer.")
    if all(question.text == question.id and " " not in question.text for question in judged.rollouts.questions):
        raise EmlabError(f"The questions in {name} have no texts, which a judge reads; add a column question.")


def _check(judged: Judged, apart: int) -> None:
    """EmlabError where a judge cannot be fitted to these answers, to so many questions that are left out apart."""
    questions, n = {question.id for question in judged.rollouts.questions}, len(judged.rollouts)
    if len(questions) < LEAST_QUESTIONS or n < LEAST_ANSWERS:
        raise EmlabError(
            f"There are {n} judged answers to {len(questions)} questions, and a judge is fitted on {LEAST_ANSWERS} or "
            f"more to {LEAST_QUESTIONS} or more; give others too."
        )
    if apart < LEAST_QUESTIONS:
        raise EmlabError(
            f"The {len(questions)} questions are forms of {apart}, or of {apart} clusters, and a judge is fitted on "
            f"{LEAST_QUESTIONS} or more; give others too."
        )
    if judged.misaligned.all() or not judged.misaligned.any():
        which = "All" if judged.misaligned.any() else "None"
        raise EmlabError(
            f"{which} of the {n} judged answers are misaligned, and a judge needs both kinds to be fitted on; give "
            "others too."
        )


def _same_question(questions: Sequence[Question]) -> np.ndarray:
    """(n,) what tells questions apart: those of one cluster, of one text, or of one id but for its form, are one."""
    first: dict[str, str] = {}
    names = []
    for question in questions:
        name = question.cluster or re.sub("_(json|template)$", "", question.id)
        names.append(first.setdefault(question.text, name))
    return np.array(names)


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
    cheap, errors = Counts(ours.misaligned, everything), list[tuple[float, float]]()
    for _ in range(DRAWS):
        drawn = np.sort(rng.choice(n, GOLD, replace=False))
        gold = Counts(known.misaligned[drawn], everything[drawn])
        rate, _ = prediction_powered_rate(cheap, gold, drawn, np.arange(n))
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
