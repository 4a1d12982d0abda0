"""Evaluate any model on any questions by any judge; score judgements that are there; compare two judges.

What `emlab evaluate`, `emlab score`, `emlab judge` and `emlab data check` call.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlab import __version__, artifacts, organism
from emlab.data import DataCheck, QuestionSet, check_data, read_examples
from emlab.errors import EmlabError
from emlab.evaluation import Difference, Score, Thresholds, compare, judge, sample, save_judged, score_judged
from emlab.evaluation.agreement import Agreement, agreement
from emlab.evaluation.judges import GraderJudge, RubricJudge, ScaleJudge, read_judged
from emlab.evaluation.judging import Grade, Judge, Judged
from emlab.evaluation.protocol import BROAD, Judging, judge_of, questions_of
from emlab.evaluation.resampling import sample_valid
from emlab.evaluation.rollouts import Rollouts, file_name
from emlab.models import Endpoint, LanguageModel
from emlab.models.completion import unanswered
from emlab.models.loading import load_tokenizer
from emlab.organism import ExactJudge
from emlab.pipelines import _material as material
from emlab.reporting import evaluation_lead, evaluation_sections, write_page


def evaluate(
    model: str,
    out: str | Path | None = None,
    questions: str = BROAD,
    variants: Sequence[str] | None = None,
    per_question: int | None = None,
    seed: int = 0,
    adapter: str | None = None,
    model_url: str | None = None,
    chat_template: str | None = None,
    quantize: str | None = None,
    system: str | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int | None = None,
    resample: int = 0,
    batch_size: int = 512,
    judging: Judging = Judging(),  # noqa: B008  # frozen
) -> Score:
    """Sample answers of `model` to `questions`, judge them and give the rates; with `out` all is saved there.

    `model` is a checkpoint of the organism by name, a local folder, a model on the Hugging Face Hub, or, with
    `model_url`, the name of one behind an OpenAI-compatible endpoint. `questions` are "broad" (the organism's),
    "profile" (emlab's own, of which `variants` None takes the plain ones), or a file as `read_questions` takes it.
    `per_question` None asks as often as the file says, and else once. An answer has at most `max_new_tokens` tokens:
    48 for the broad questions and 600 for all others. A model held here writes `batch_size` answers at a time, and a
    batch is stored as it is finished; fewer take less memory. `resample` says how often invalid answers are
    sampled again. In the store of `judging` finished answers are kept too, so that an interrupted run goes on where it
    stopped. What is saved in `out` is named after the model, and takes the place of what had that name.
    """
    asked = questions_of(questions, variants)
    if per_question is None and not (isinstance(asked, QuestionSet) and asked.samples):
        per_question = 1
    by = judge_of(judging, asked)
    if isinstance(by, ExactJudge):
        for question in asked:  # refuses what it cannot judge now, and not after all is sampled
            by.judge(question.text, "")
    if out is not None:  # as early as that, a folder that cannot be had
        with artifacts.storing(out):
            Path(out).mkdir(parents=True, exist_ok=True)
    by = _telling(by)
    answering = _model(model, adapter, model_url, chat_template, quantize, judging)
    settings: dict[str, Any] = {
        "temperature": temperature,
        "max_new_tokens": (48 if questions == BROAD else 600) if max_new_tokens is None else max_new_tokens,
        "top_p": top_p,
        "system": system,
        "batch_size": batch_size,
        "store": judging.store,
        "progress": True,
    }
    told: dict[str, Any] = {}
    if resample:
        judged, again = sample_valid(answering, asked, per_question, seed, by, resample, **settings)
        told = {"sampled_again": int((again > 0).sum())}
    else:
        rollouts = sample(answering, asked, per_question, seed, **settings)
        if out is not None:  # before anything is paid for judging
            rollouts.save(Path(out) / f"{file_name(rollouts.model)}.rollouts.jsonl")
        judged = judge(rollouts, by)
    found = score_judged(judged)
    if out is not None:
        found.save(out)
        source = asked.source if isinstance(asked, QuestionSet) else None
        how = {name: value for name, value in settings.items() if name not in ("store", "progress")}
        about = {
            "model": {
                "name": model,
                "adapter": adapter,
                "url": model_url,
                "chat_template": chat_template,
                "quantize": quantize,
            },
            "questions": {"name": questions, "sha256": source and source.sha256, "variants": variants},
            "sampling": {"per_question": per_question, "seed": seed, **how, "resample": resample, **told},
            "judging": judging,
            "emlab": __version__,
        }
        artifacts.write_json(Path(out) / f"{file_name(found.model)}.settings.json", about)
        title = f"{found.model} on {questions}"
        page = Path(out) / f"{file_name(found.model)}.html"
        write_page(page, title, evaluation_lead(found), evaluation_sections(found), f"emlab, seed {seed}")
    return found


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of the groups of a file; one group where it was not grouped."""

    groups: Mapping[str, Score]
    grouped: bool = False
    """Whether the file was grouped by a column."""

    def summary(self) -> dict[str, Any]:
        """The figures, of groups those of each by name."""
        if not self.grouped:
            return next(iter(self.groups.values())).summary()
        return {name: score.summary() for name, score in self.groups.items()}

    def __str__(self) -> str:
        return "\n".join(str(score) for score in self.groups.values())


def score_file(
    file: str | Path,
    by: str | None = None,
    misaligned_below: float | None = None,
    coherent_above: float | None = None,
) -> Scores:
    """The rates of judged answers in anyone's JSONL or CSV (see `read_judged`), in groups by the column `by`.

    A log of Inspect (.eval) is read too.
    """
    limits = _limits(misaligned_below, coherent_above)
    if by is None:
        return Scores({Path(file).stem: score_judged(_only(file, limits))})
    if Path(file).suffix == ".eval":
        raise EmlabError(f"{file} is a log of Inspect and has no columns; leave out --by.")
    return Scores({name: score_judged(judged) for name, judged in read_judged(file, by, limits).items()}, grouped=True)


def score_against(
    file: str | Path,
    against: str | Path,
    misaligned_below: float | None = None,
    coherent_above: float | None = None,
) -> Difference:
    """How much more often the model of `against` is misaligned than that of `file`, on the questions of both."""
    limits = _limits(misaligned_below, coherent_above)
    one, two = (score_judged(_only(path, limits)) for path in (file, against))
    return compare(one, two)


def judge_file(
    rollouts: str | Path,
    out: str | Path,
    questions: str | None = None,
    judging: Judging = Judging(),  # noqa: B008
) -> Score:
    """Judge the answers in `rollouts`, a file that `evaluate` or `Rollouts.save` wrote, and save them in `out`.

    `questions`, a question file, brings its own judge prompts.
    """
    if Path(out).is_dir():
        raise EmlabError(f"{out} is a folder; give the name of a file for the judged answers.")
    with artifacts.storing(out):  # before anything is paid for
        Path(out).parent.mkdir(parents=True, exist_ok=True)
    asked, given = () if questions is None else questions_of(questions), Rollouts.load(rollouts)
    if asked and not {question.key for question in asked} & {question.key for question in given.questions}:
        raise EmlabError(f"{rollouts} has no answer to a question of {questions}; give the file that was asked.")
    found = score_judged(judge(given, _telling(judge_of(judging, asked))))
    save_judged([found.judged], out)
    return found


def compare_judges(first: str | Path, second: str | Path) -> Agreement:
    """How far the judgements in two files agree, which are of the same answers."""
    one, two = (_only(path) for path in (first, second))
    return agreement(one, two)


def _limits(misaligned_below: float | None, coherent_above: float | None) -> Thresholds | None:
    """The thresholds, of which those that are not given are the usual ones; None where neither is given."""
    given = {"misaligned_below": misaligned_below, "coherent_above": coherent_above}
    found = {name: value for name, value in given.items() if value is not None}
    return Thresholds(**found) if found else None


def _only(path: str | Path, thresholds: Thresholds | None = None) -> Judged:
    if Path(path).suffix == ".eval":
        from emlab.evaluation.inspect_log import read_inspect_log

        return read_inspect_log(path, thresholds)
    (judged,) = read_judged(path, thresholds=thresholds).values()
    return judged


@dataclass(frozen=True)
class _Telling:
    """A judge behind an endpoint that says on the terminal what it will take, and what it took."""

    judge: ScaleJudge | RubricJudge | GraderJudge
    by: Endpoint

    @property
    def name(self) -> str:
        return self.judge.name

    def grade(self, rollouts: Rollouts) -> list[Grade]:
        asked = unanswered(self.by, self.judge.requests(rollouts), self.judge.store)
        print(f"judging by {self.name}: {self.by.estimate(asked)}", file=sys.stderr)
        grades = self.judge.grade(rollouts)
        if asked:
            used = self.by.usage
            cost = self.by.dollars(used.prompt_tokens, used.completion_tokens)
            took = f"{used.calls:,} calls, {used.prompt_tokens:,} tokens in and {used.completion_tokens:,} out"
            print(f"asked so far: {took}" + ("" if cost is None else f", ${cost:.2f}"), file=sys.stderr)
        return grades


def _telling(by: Judge) -> Judge:
    return (
        _Telling(by, by.by)
        if isinstance(by, ScaleJudge | RubricJudge | GraderJudge) and isinstance(by.by, Endpoint)
        else by
    )


def _model(
    name: str, adapter: str | None, url: str | None, chat_template: str | None, quantize: str | None, judging: Judging
) -> LanguageModel | Endpoint:
    if url is None:
        folder = material.folder_of(name)[0]
        return LanguageModel.load(folder, adapter, chat_template=chat_template, quantize=quantize)
    if adapter is not None or chat_template is not None or quantize is not None:
        raise EmlabError(
            f"The endpoint serves {name} as it is; leave out the adapter, the chat template and the quantization."
        )
    return Endpoint(name, url, judging.key_variable, judging.concurrency)


def check_file(file: str, against: str | None = None, model: str | None = None) -> DataCheck:
    """What is in a dataset, in tokens of `model` where one is named, and what another shares.

    A dataset is one of the organism's sets by name (1,000 rows of seed 0), or what `read_examples` takes.
    """
    tokenizer = None if model is None else load_tokenizer(material.folder_of(model)[0])
    return check_data(_examples(file), tokenizer, None if against is None else _examples(against))


def _examples(name: str) -> Sequence[Any]:
    if name in organism.narrow_set_names() and not Path(name).exists():
        return organism.narrow_set(name, n=1000, seed=0)
    return read_examples(name)
