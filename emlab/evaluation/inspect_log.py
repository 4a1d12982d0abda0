"""Logs of Inspect as judgements: the answers of the task `emergent_misalignment`, read back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emlab.data.questions import Question
from emlab.errors import EmlabError, install
from emlab.evaluation.judging import Grade, Judged, Thresholds
from emlab.evaluation.labelling import Labelled
from emlab.evaluation.rollouts import Rollouts

try:
    from inspect_ai.log import EvalLog, EvalSample, read_eval_log
    from inspect_ai.model import ChatMessage
    from inspect_ai.scorer import SampleScore, Score
except ImportError as error:
    raise EmlabError(f"Inspect is not installed ({error}); install it with `{install('inspect')}`.") from error


def read_inspect_log(path: str | Path, thresholds: Thresholds | None = None, scorer: str | None = None) -> Judged:
    """The judged answers in a log (.eval or .json) of the task `emergent_misalignment`; `score_judged` gives the rates.

    By default the thresholds are those of the log. `scorer` names one of the scorers of a log that was judged again.
    Raises EmlabError where the file is no log of this task, where answers or judgements are missing, and where it
    holds those of two judges.
    """
    rollouts, scores, judge = _scored(path, {"judge", "coherent_above"}, scorer)
    return judged_of(rollouts, scores, judge, thresholds)


def read_inspect_labels(path: str | Path, scorer: str | None = None) -> Labelled:
    """The labelled answers in a log of that task by the method "label"; errors as of `read_inspect_log`."""
    rollouts, scores, judge = _scored(path, {"judge", "choices"}, scorer)
    return labelled_of(rollouts, scores, judge)


def _scored(path: str | Path, marks: set[str], scorer: str | None) -> tuple[Rollouts, list[Score], str]:
    """The answers in a log, their scores by the one scorer whose metadata has these `marks`, and its judge."""
    log = _log(path)
    names = list(dict.fromkeys(name for one in log.samples or () for name in _ours(one, marks)))
    if scorer is not None:
        names = [name for name in names if name == scorer]
    if log.status != "success":
        raise EmlabError(
            f"{path} is the log of an evaluation that did not finish ({log.status}); finish it with "
            f"`inspect eval-retry {path}`."
        )
    if not names:
        raise EmlabError(
            f"{path} holds no answers judged by emlab's task; give a log of `inspect eval emlab/emergent_misalignment` "
            "with its samples."
        )
    if len(names) > 1:
        raise EmlabError(
            f"{path} holds the judgements of {' and '.join(names)}, which must not be mixed in one score; choose one "
            "as the scorer."
        )
    (name,) = names
    # The order of the set, and all answers to a question together, whatever order they came in.
    samples = sorted(log.samples or (), key=lambda one: (row_of(one.metadata), one.epoch))
    if lost := [one for one in samples if name not in (one.scores or {})]:
        why = f" ({lost[0].error.message})" if lost[0].error else ""
        raise EmlabError(
            f"{path} lacks {len(lost)} of its {len(samples)} answers{why}; ask for them again with "
            f"`inspect eval-retry {path}`."
        )
    scores = [(one.scores or {})[name] for one in samples]
    judges = sorted({str((score.metadata or {}).get("judge")) for score in scores})
    if len(judges) > 1:
        raise EmlabError(
            f"{path} holds the judgements of {' and '.join(judges)} in one scorer; judge the answers anew."
        )
    rollouts = Rollouts(
        tuple(question_of(one.metadata, one.input) for one in samples),
        tuple(one.output.completion for one in samples),
        _model_name(log),
        log.plan.config.seed or 0,
        _temperature(log),
    )
    return rollouts, scores, judges[0]


def question_of(about: Mapping[str, Any], turns: str | Sequence[ChatMessage] = ()) -> Question:
    """The question of a sample, from its metadata and its input."""
    texts = {"user": turns} if isinstance(turns, str) else {turn.role: turn.text for turn in turns}
    return Question(
        about["question"],
        about["domain"],
        texts.get("user", ""),
        texts.get("system"),
        about["variant"],
        about["paraphrase"],
        about.get("cluster", ""),
    )


def row_of(about: Mapping[str, Any] | None) -> int:
    """The place of a sample's question in the set: answers of one question stand together."""
    return (about or {}).get("row", 0)


def scored_of(scores: Sequence[SampleScore]) -> tuple[Rollouts, list[Score]]:
    """The answers that a metric is given, in the order of their questions, and their scores."""
    ordered = sorted(scores, key=lambda one: row_of(one.sample_metadata))
    questions = tuple(question_of(one.sample_metadata or {}) for one in ordered)
    answers = tuple(one.score.answer or "" for one in ordered)
    return Rollouts(questions, answers, "", 0, math.nan), [one.score for one in ordered]


def judged_of(
    rollouts: Rollouts, scores: Sequence[Score], judge: str = "", thresholds: Thresholds | None = None
) -> Judged:
    grades = [_grade(score) for score in scores]
    if thresholds is None and scores:
        about = scores[0].metadata or {}
        thresholds = Thresholds(about["misaligned_below"], about["coherent_above"])
    return Judged.of(rollouts, grades, judge, thresholds)


def labelled_of(rollouts: Rollouts, scores: Sequence[Score], judge: str = "") -> Labelled:
    about = (scores[0].metadata or {}) if scores else {}
    labels = tuple(str(score.as_dict()["label"] or "") for score in scores)
    said = tuple(score.explanation or "" for score in scores)
    return Labelled(rollouts, labels, tuple(about.get("choices", ())), str(about.get("asked_for", "")), said, judge)


def _grade(score: Score) -> Grade:
    value = score.as_dict()
    aligned, coherent = (
        math.nan if value[name] is None else float(value[name] or 0) for name in ("aligned", "coherent")
    )
    return Grade(aligned, coherent, str(value["outcome"]), score.explanation or "")


def _log(path: str | Path) -> EvalLog:
    try:
        return read_eval_log(str(path))
    except Exception as error:  # Inspect raises whatever zip, JSON and pydantic do
        raise EmlabError(f"{path} cannot be read as a log of Inspect ({str(error)[:200]}); check the path.") from error


def _ours(sample: EvalSample, marks: set[str]) -> list[str]:
    """The names of emlab's scorers of one kind that judged a sample."""
    if "question" not in (sample.metadata or {}):
        return []
    return [name for name, score in (sample.scores or {}).items() if marks <= set(score.metadata or {})]


def _model_name(log: EvalLog) -> str:
    """The folder of a local model, and else the last part of the model's name."""
    folder = (log.eval.model_args or {}).get("model_path")
    return Path(str(folder or log.eval.model)).name


def _temperature(log: EvalLog) -> float:
    if (log.eval.model_args or {}).get("do_sample") is False:
        return 0.0
    given = log.plan.config.temperature
    return math.nan if given is None else given
