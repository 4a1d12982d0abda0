"""Labels in Inspect: answers labelled by the words that a question file's judge prompts ask for, and their shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

from emlab.data import QuestionSet, read_questions
from emlab.errors import EmlabError
from emlab.evaluation.inspect_judge import calls_at_once, model_of
from emlab.evaluation.inspect_log import labelled_of, question_of, row_of
from emlab.evaluation.label_shares import LabelShares, LabelTally
from emlab.evaluation.labelling import label_answers
from emlab.evaluation.protocol import LABEL, Judging, labeller_of
from emlab.evaluation.rollouts import Rollouts

try:
    import anyio
    from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, Value, metric, scorer
    from inspect_ai.solver import TaskState
    from inspect_ai.util import concurrency
except ImportError as error:
    raise EmlabError(f'Inspect is not installed ({error}); install it with `pip install "emlab[inspect]"`.') from error


@metric(scores="unreduced")
def label_shares() -> Metric:
    """Each label's share of the labelled answers and of all, with the 95% interval from resampling questions."""

    def compute(scores: list[SampleScore]) -> Value:
        tally = _tally(scores)
        return {
            f"{name}_of_{of}{end}": value
            for of, shares in (("labelled", tally.of_labelled), ("all", tally.of_all))
            for name, rate in shares.items()
            for end, value in (("", rate.rate), ("_low", rate.low), ("_high", rate.high))
        }

    return compute


@metric(scores="unreduced")
def label_counts() -> Metric:
    """How many answers there are, how many have a label, how many failed, and how many have each."""

    def compute(scores: list[SampleScore]) -> Value:
        tally = _tally(scores)
        return {**{name: getattr(tally, name) for name in ("total", "labelled", "failed")}, **tally.counts}

    return compute


@scorer(metrics=[label_shares(), label_counts()])
def labels(
    judge: str = "grader",
    judge_url: str | None = None,
    judge_key: str | None = None,
    judge_tokens: int = 16,
    prompts_from: str | None = None,
) -> Scorer:
    """The label of an answer, or nothing; the arguments are those of the task, and `prompts_from` the question file."""
    questions: QuestionSet | Sequence = read_questions(prompts_from) if prompts_from else ()
    how = Judging(judge, method=LABEL, max_tokens=judge_tokens)
    by = labeller_of(how, questions, model_of(judge, judge_url, judge_key))
    at_once = calls_at_once(by, judge_url)
    threads = anyio.CapacityLimiter(1000)

    async def score(state: TaskState, target: Target) -> Score:
        question, answer = question_of(state.metadata, state.input), state.output.completion
        rollouts = Rollouts((question,), (answer,), str(state.model), 0, math.nan)
        async with concurrency(f"labelling by {judge}", at_once, visible=at_once < 1000):
            # Judges wait for their replies, so they do it in a thread, and Inspect's event loop goes on.
            found = await anyio.to_thread.run_sync(label_answers, rollouts, by, limiter=threads)
        return Score(
            value={"label": found.labels[0] or None},
            answer=answer,
            explanation=found.said[0] or None,
            metadata={"judge": found.judge, "asked_for": found.asked_for, "choices": list(found.choices)},
        )

    return score


def _tally(scores: Sequence[SampleScore]) -> LabelTally:
    """emlab's own figures of these answers."""
    ordered = sorted(scores, key=lambda one: row_of(one.sample_metadata))
    questions = tuple(question_of(one.sample_metadata or {}) for one in ordered)
    rollouts = Rollouts(questions, tuple(one.score.answer or "" for one in ordered), "", 0, math.nan)
    return LabelShares(labelled_of(rollouts, [one.score for one in ordered])).overall
