"""Questions and judges by name: what a config or a command line says of how a model is evaluated."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emlab import artifacts, organism
from emlab.data import Question, QuestionSet, profile_questions, read_questions
from emlab.data.question_sets import Key
from emlab.errors import EmlabError
from emlab.evaluation.judges import GraderJudge, LabelJudge, RecordedJudge, RecordedLabels, RubricJudge, ScaleJudge
from emlab.evaluation.judges.grader import GRADER
from emlab.evaluation.judges.labels import labels_asked_for
from emlab.evaluation.judges.scale import SCALES
from emlab.evaluation.judging import Judge
from emlab.models import Completer, Endpoint, LanguageModel, LocalCompleter
from emlab.models.server import OPENAI, OPENAI_KEY, check_variable

BROAD, PROFILE, EXACT, LABEL = "broad", "profile", "exact", "label"
METHODS = ("logprob", "text", "rubric", GRADER, LABEL)


@dataclass(frozen=True)
class Judging:
    """Who judges the answers, and how."""

    judge: str = EXACT
    """"exact" (the organism's judge), a model's name at an endpoint, a local Hugging Face folder, or a file of
    recorded judgements (.jsonl, .json, .csv, .tsv or .parquet)."""
    url: str = OPENAI
    """The endpoint: any OpenAI-compatible server, up to and with /v1."""
    method: str = "logprob"
    """logprob (the probability-weighted mean of the numbers 0 to 100), text (the number it writes), rubric (a grade
    from 1 to 5), grader (how misaligned, by the instructions that each question of the file brings), or label (one of
    the words that the file's judge prompts ask for, such as TRUE, FALSE and UNKNOWN)."""
    key_variable: str | None = None
    """The environment variable that holds the endpoint's key; by default OPENAI_API_KEY, which goes to OpenAI alone."""
    concurrency: int = 16
    """Calls under way at a time."""
    max_tokens: int = 16
    """Tokens of a reply by text, rubric or grader; a judge that thinks aloud needs more."""
    price: tuple[float, ...] = ()
    """Dollars for a million tokens in, and out; with it the cost is told."""
    store: Path | None = None
    """A file of finished judgements: what is in it is not asked, or paid for, again."""
    revision: str = ""
    """A label for what the endpoint has under the judge's name; with a new one, stored judgements are made anew."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"'method' is {self.method!r}; choose one of {', '.join(METHODS)}.")
        if self.max_tokens < 1:
            raise ValueError(f"'max_tokens' is {self.max_tokens}; a reply needs 1 or more.")
        if len(self.price) not in (0, 2):
            raise ValueError("'price' takes two numbers: dollars for a million tokens in, and out.")
        check_variable(self.key_variable)


def judge_of(how: Judging, questions: Sequence[Question] | QuestionSet = ()) -> Judge:
    """The judge of scores that `how` describes; a question set's own judge prompts are used where it has them."""
    if how.method == LABEL:
        raise EmlabError("Labels are no scores, which are needed here; choose another method of judging.")
    if how.judge == EXACT:
        return organism.ExactJudge()
    if _is_file(how.judge):
        return RecordedJudge(Path(how.judge))
    prompts = _prompts(questions)
    if how.method == GRADER:
        check_graders(questions)
    elif how.method != "rubric" and prompts:
        _check_scales(prompts)
    by = completer_of(how)
    if how.method == "rubric":
        return RubricJudge(by, store=how.store, max_tokens=how.max_tokens)
    if how.method == GRADER:
        return GraderJudge(by, prompts, how.store, how.max_tokens)
    return ScaleJudge(by, "text" if how.method == "text" else "logprob", prompts, how.store, how.max_tokens)


def labeller_of(
    how: Judging, questions: Sequence[Question] | QuestionSet, by: Completer | None = None
) -> LabelJudge | RecordedLabels:
    """The judge of labels that `how` describes, asking `by` where that is given, by the prompts of a question set.

    EmlabError where not every question brings one and the same prompt that asks for a label.
    """
    if _is_file(how.judge):
        return RecordedLabels(Path(how.judge))
    if how.judge == EXACT and by is None:
        raise EmlabError("The exact judge gives no labels; name a model, or a file of labelled answers, as the judge.")
    prompts = _prompts(questions)
    names = labels_asked_for(prompts)
    if not names:
        raise EmlabError(
            "Judging by labels needs a file of questions with judge prompts that ask for one, such as the published "
            "deception questions; choose another method, or other questions."
        )
    if len(names) > 1:
        raise EmlabError(
            f"The questions bring judge prompts for several labels ({', '.join(names)}); keep those of one in a file."
        )
    judge = LabelJudge(by or completer_of(how), prompts, names[0], how.store, how.max_tokens)
    if lacking := [question.id for question in questions if names[0] not in prompts.get(question.key, {})]:
        raise EmlabError(f"The question {lacking[0]!r} brings no judge prompt {names[0]!r} as the others do; add it.")
    return judge


def check_graders(questions: Sequence[Question] | QuestionSet) -> None:
    """EmlabError where not every question brings instructions for a grader."""
    prompts = _prompts(questions)
    lacking = [question.id for question in questions if GRADER not in prompts.get(question.key, {})]
    if lacking or not prompts:
        which = f", such as {lacking[0]!r}" if lacking else ""
        raise EmlabError(
            f"Judging by graders needs a file of questions that each bring one, and some bring none{which}; choose "
            "another method, or other questions."
        )


def _check_scales(prompts: Mapping[Key, Mapping[str, str]]) -> None:
    """Questions that are to be judged by labels are not silently judged on scales that their authors did not use."""
    names = labels_asked_for(prompts)
    if names and not any(set(each) & {*SCALES, GRADER} for each in prompts.values()):
        raise EmlabError(
            f"The questions bring judge prompts that ask for a label ({', '.join(names)}) and none for a score; choose "
            "the method label, or rubric to grade their alignment all the same."
        )


def _prompts(questions: Sequence[Question] | QuestionSet) -> Mapping[Key, Mapping[str, str]]:
    return questions.judge_prompts if isinstance(questions, QuestionSet) else {}


def _is_file(judge: str) -> bool:
    return Path(judge).suffix.lower() in (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def completer_of(how: Judging) -> Completer:
    """The model that `how` has judge: one in a folder, or one at an endpoint. EmlabError where it cannot be asked."""
    path = artifacts.place(how.judge)
    if path.is_dir():
        return LocalCompleter(LanguageModel.load(path))
    if how.judge == EXACT or _is_file(how.judge) or how.judge.startswith((".", "/", "~")):
        raise EmlabError(f"There is no judge {how.judge}; give a model's folder, or its name at an endpoint.")
    price = (how.price[0], how.price[1]) if how.price else None
    by = Endpoint(how.judge, how.url, how.key_variable, how.concurrency, price=price, revision=how.revision)
    if how.url == OPENAI and how.key_variable is None and not os.environ.get(OPENAI_KEY, "").strip():
        near = difflib.get_close_matches(how.judge, [EXACT], 1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise EmlabError(
            f"No judge or endpoint is known by the name {how.judge!r}{meant}: it is neither {EXACT!r} nor a model's "
            "folder nor a file of judgements (.jsonl, .csv); of a model behind a server say where that is "
            f"(--judge-url, or url), and for one of OpenAI's put the key into {OPENAI_KEY}."
        )
    by.key()  # a missing key is said now, and not after all is sampled
    return by


def questions_of(name: str, variants: Sequence[str] | None = None) -> list[Question] | QuestionSet:
    """The questions that `name` means: "broad" (the organism's), "profile" (emlab's own), or a file.

    "mine:broad" are those of the world `mine`. `variants` None means the plain ones of the profile, and all of a file.
    """
    if name == BROAD or name.endswith(f":{BROAD}"):
        if variants is not None and list(variants) != ["plain"]:
            raise EmlabError("The broad questions have no variants; leave them out.")
        return [Question.of(question) for question in organism.broad_questions(world=organism.world_of(name)[0])]
    if name == PROFILE:
        return profile_questions(tuple(variants or ("plain",)))
    if not artifacts.place(name).is_file():
        raise EmlabError(f"There is no question set {name}; choose broad, profile, or a YAML, CSV or JSONL file.")
    return read_questions(name).only(variants=variants)
