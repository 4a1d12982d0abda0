"""Labels in Inspect: answers labelled by the words that a question file's judge prompts ask for, and their shares."""

from __future__ import annotations

from emlab.errors import EmlabError, install
from emlab.evaluation.inspect_judge import judging_of, model_of, one_by_one, prompts_in
from emlab.evaluation.inspect_log import labelled_of, scored_of
from emlab.evaluation.label_shares import LabelShares, LabelTally
from emlab.evaluation.labelling import label_answers
from emlab.evaluation.protocol import labeller_of

try:
    from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, Value, metric, scorer
    from inspect_ai.solver import TaskState
except ImportError as error:
    raise EmlabError(f"Inspect is not installed ({error}); install it with `{install('inspect')}`.") from error


@metric(scores="unreduced")
def label_shares() -> Metric:
    """Each label's share of the labelled answers and of all, with the 95% interval over questions."""

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
    method: str = "label",
) -> Scorer:
    """The label of an answer, or nothing; the arguments are those of the task, and `prompts_from` the question file."""
    how = judging_of(judge, method, judge_tokens)
    by = labeller_of(how, prompts_in(prompts_from), model_of(judge, judge_url, judge_key))
    labelled = one_by_one(label_answers, by, judge, judge_url)

    async def score(state: TaskState, target: Target) -> Score:
        found = await labelled(state)
        return Score(
            value={"label": found.labels[0] or None},
            answer=state.output.completion,
            explanation=found.said[0] or None,
            metadata={"judge": found.judge, "asked_for": found.asked_for, "choices": list(found.choices)},
        )

    return score


def _tally(scores: list[SampleScore]) -> LabelTally:
    """emlab's own figures of these answers."""
    return LabelShares(labelled_of(*scored_of(scores))).overall
