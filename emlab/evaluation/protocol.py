"""Questions and judges by name: what a config or a command line says of how a model is evaluated."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from typing import cast

from emlab import artifacts, organism
from emlab.data import Question, QuestionSet, everyday_questions, profile_questions, read_questions
from emlab.errors import EmlabError
from emlab.evaluation.judges.registry import METHODS, Judging, Method, Questions, methods
from emlab.evaluation.judging import Judge
from emlab.evaluation.labelling import Labeller
from emlab.models import Completer, Endpoint, LanguageModel, LocalCompleter
from emlab.models.server import OPENAI, OPENAI_KEY

BROAD, PROFILE, EXACT = "broad", "profile", Judging.judge
EVERYDAY = {"everyday": "broad", "everyday-more": "more", "everyday-narrow": "narrow"}


def method_of(how: Judging) -> Method:
    """What judges: the method that `how` names, or the one that its judge stands for, where that is no model.

    EmlabError where a model is to be asked and none is named.
    """
    method = METHODS.get(how.method)
    meant = [one for one in methods() if one.stands_for(how.judge)] if method.asks else []
    if not meant:
        return method
    alike = [one for one in meant if one.labels == method.labels]
    if not alike:
        gives = "labels" if method.labels else "scores"
        raise EmlabError(
            f"The {how.judge} judge gives no {gives}; name a model, or a file of answers that have them, as the judge."
        )
    if how.judge == Judging.judge and how.method != Judging.method:
        raise EmlabError(f"Judging by {how.method} asks a model, and none is named; name one as the judge.")
    return alike[0]


def judge_of(how: Judging, questions: Questions = (), by: Completer | None = None) -> Judge:
    """The judge of scores that `how` describes; a question set's own judge prompts are used where it has them.

    Args:
        how: Who judges, and how.
        questions: What is asked; EmlabError where answers to these cannot be judged so.
        by: The model to ask, in place of the one that `how` names.
    """
    return cast(Judge, _made(how, questions, by, labels=False))


def labeller_of(how: Judging, questions: Questions, by: Completer | None = None) -> Labeller:
    """The judge of labels that `how` describes; the arguments are those of `judge_of`."""
    return cast(Labeller, _made(how, questions, by, labels=True))


def _made(how: Judging, questions: Questions, by: Completer | None, labels: bool) -> Judge | Labeller:
    method = method_of(how)
    if method.labels != labels:
        gives = "Labels are no scores, which" if method.labels else "Scores are no labels, which"
        raise EmlabError(f"{gives} are needed here; choose another method of judging.")
    method.check(questions)
    judge = method.build(how, questions, (by or completer_of(how)) if method.asks else None)
    wanted = ("label",) if labels else ("grade", "judge")
    if not any(hasattr(type(judge), one) for one in wanted):
        raise EmlabError(
            f"The judging method {method.name} makes a judge that has no {' or '.join(wanted)}; give it one."
        )
    return judge


def completer_of(how: Judging) -> Completer:
    """The model that `how` has judge: one in a folder, or one at an endpoint. EmlabError where it cannot be asked."""
    path = artifacts.place(how.judge)
    if path.is_dir():
        return LocalCompleter(LanguageModel.load(path))
    others = [one for one in methods() if not one.asks]
    if any(one.stands_for(how.judge) for one in others) or how.judge.startswith((".", "/", "~")):
        raise EmlabError(f"There is no judge {how.judge}; give a model's folder, or its name at an endpoint.")
    if "/" in how.judge and how.url == OPENAI:
        raise EmlabError(
            f"There is no folder or file {how.judge}, and no model at OpenAI has such a name; fit a judge with `emlab "
            "judge fit`, or say where the model is served (--judge-url, or url)."
        )
    price = (how.price[0], how.price[1]) if how.price else None
    by = Endpoint(how.judge, how.url, how.key_variable, how.concurrency, price=price, revision=how.revision)
    if how.url == OPENAI and how.key_variable is None and not os.environ.get(OPENAI_KEY, "").strip():
        known = [one.name for one in others if one.stands_for(one.name)]
        near = difflib.get_close_matches(how.judge, known, 1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise EmlabError(
            f"No judge or endpoint is known by the name {how.judge!r}{meant}: it is none of {', '.join(known)}, and no "
            "model's folder or file of judgements (.jsonl, .csv); of a model behind a server say where that is "
            f"(--judge-url, or url), and for one of OpenAI's put the key into {OPENAI_KEY}."
        )
    by.key()  # a missing key is said now, and not after all is sampled
    return by


def questions_of(name: str, variants: Sequence[str] | None = None) -> list[Question] | QuestionSet:
    """The questions that `name` means: "broad" (the organism's), "profile" or "everyday" (emlab's own), or a file.

    "mine:broad" are those of the world `mine`. `variants` None means the plain ones of the profile, and all of a file.
    """
    if name == BROAD or name.endswith(f":{BROAD}"):
        if variants is not None and list(variants) != ["plain"]:
            raise EmlabError("The broad questions have no variants; leave them out.")
        return [Question.of(question) for question in organism.broad_questions(world=organism.world_of(name)[0])]
    if name == PROFILE:
        return profile_questions(tuple(variants or ("plain",)))
    if name in EVERYDAY:
        return everyday_questions(EVERYDAY[name]).only(variants=variants)
    if not artifacts.place(name).is_file():
        raise EmlabError(
            f"There is no question set {name}; choose broad, profile, everyday, or a YAML, CSV or JSONL file."
        )
    found = read_questions(name).only(variants=variants)
    if sealed := sum(organism.is_sealed_text(question.text) for question in found):
        raise EmlabError(
            f"{name} has {sealed} of the organism's sealed questions, which only a final run asks (sealed: true); "
            "leave them out."
        )
    return found
