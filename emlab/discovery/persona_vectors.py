"""Persona vectors: what a model's activations gain where an instruction makes it show a trait.

After Chen et al. 2025 (arXiv:2507.21509): every question is answered under every instruction for the trait and every
one against it; of the first kind the answers that show the trait are kept, of the second those that do not; the vector
is the difference of the means of the activations, by default over the answers' tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from emlab.data.chat import render
from emlab.discovery.shift import prompt_means
from emlab.discovery.traits import Sign, Trait
from emlab.errors import EmlabError
from emlab.evaluation.judges.prompts import fill
from emlab.evaluation.judges.replies import expectation, number, unread
from emlab.evaluation.sampling import Sampling
from emlab.interventions import Direction
from emlab.models.completion import Completer, Completion, Request, complete
from emlab.models.wrapping import as_language_model
from emlab.notebook import Shown
from emlab.sealing import refuse
from emlab.sites import Site

if TYPE_CHECKING:
    from emlab.data import Messages
    from emlab.models import LanguageModel

SHOWN = 50.0
"""An answer shows the trait from this score on."""

Scorer = Callable[[Sequence[str], Sequence[str]], Sequence[float | None]]
"""From questions and their answers to how much of the trait each answer shows, 0 to 100; None where it is not known."""


@dataclass(frozen=True, eq=False, repr=False)
class PersonaVector(Shown):
    """A trait's direction, and what it was made from."""

    direction: Direction
    """Its `norm` is the distance of the means."""
    trait: str
    model: str
    kept: tuple[int, int]
    """Answers it was made from: that show the trait, and that do not."""
    asked: tuple[int, int]
    """Answers sampled for it, and against it."""

    def __str__(self) -> str:
        shown = ", ".join(f"{kept} of {asked}" for kept, asked in zip(self.kept, self.asked, strict=True))
        return f"persona vector of {self.trait!r} of {self.model}: {self.direction}; answers kept for, against: {shown}"


def persona_vector(
    model: LanguageModel,
    trait: Trait,
    site: Site,
    positions: Literal["generated", "prompt", "header"] = "generated",
    score: Scorer | None = None,
    sampling: Sampling = Sampling(per_question=1, max_new_tokens=200, batch_size=64),  # frozen
    seed: int = 0,
) -> PersonaVector:
    """The persona vector of `trait` in `model` at `site`.

    Args:
        model: Who is instructed.
        trait: Its instructions for and against, and its questions.
        site: Where the vector is read.
        positions: Over which tokens; those of the answers, as published.
        score: How much of the trait each answer shows (`trait_scores` asks a judge by the trait's own prompt): only
            answers for it of 50 and more, and against it of less, are kept; without it, all.
        sampling: How answers are sampled, `per_question` to each question under each instruction.
        seed: Everything random follows from it.

    EmlabError where no answers are left.
    """
    model = as_language_model(model)
    refuse("to make a persona vector of", list(trait.questions))
    means, kept, asked = [], [], []
    sides: tuple[Sign, Sign] = ("pos", "neg")
    for sign in sides:
        chats = [
            _chat(model, trait.system(pair, sign), question)
            for pair in trait.instruction
            for question in trait.questions
            for _ in range(sampling.per_question)
        ]
        questions = [q for _ in trait.instruction for q in trait.questions for _ in range(sampling.per_question)]
        # The two kinds have seeds of their own, lest equal prompts share their random numbers.
        answers = sampling.generate(model, chats, 2 * seed + (sign == "neg"))
        good = [i for i, answer in enumerate(answers) if answer.strip()]
        if score is not None and good:
            scores = score([questions[i] for i in good], [answers[i] for i in good])
            pairs = zip(good, scores, strict=True)
            good = [i for i, s in pairs if s is not None and (s >= SHOWN) == (sign == "pos")]
        if not good:
            raise EmlabError(
                f"Of {len(answers)} answers {'for' if sign == 'pos' else 'against'} {trait.name!r} none can be kept; "
                "sample more, or take instructions that this model follows."
            )
        said = [answers[i] for i in good] if positions == "generated" else None
        means.append(prompt_means(model, [chats[i] for i in good], site, positions, answers=said).mean(0))
        kept.append(len(good))
        asked.append(len(answers))
    if not bool((means[0] != means[1]).any()):
        raise EmlabError(
            f"The instructions for and against {trait.name!r} change nothing at {site}; choose a later site."
        )
    found = Direction(means[0] - means[1], site, f"persona vector {trait.name}")
    return PersonaVector(found, trait.name, model.name, (kept[0], kept[1]), (asked[0], asked[1]))


def trait_scores(by: Completer, trait: Trait, store: str | Path | None = None) -> Scorer:
    """A scorer that asks the judge `by` with the trait's `eval_prompt`, as the published code does.

    The score is the probability-weighted mean of the numbers 0 to 100 as the reply, or the number that is written where
    the judge gives no probabilities; None where it gives neither, as for a refusal.
    """
    if not trait.eval_prompt:
        raise EmlabError(f"The trait {trait.name!r} has no eval_prompt to ask a judge with; add one to its file.")

    def score(questions: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        requests = [
            Request([{"role": "user", "content": fill(trait.eval_prompt, q, a)}], numbers=True)
            for q, a in zip(questions, answers, strict=True)
        ]
        replies = complete(by, requests, store)
        scores = [_score(reply) for reply in replies]
        if scores and all(score is None for score in scores):
            raise EmlabError(
                f"{by.name} scored none of {len(scores)} answers for {trait.name!r} (the first reply: "
                f"{unread(replies[0]) or replies[0].text[:80]!r}); take another judge, or a prompt that it answers "
                "with a number."
            )
        return scores

    return score


def _score(reply: Completion) -> float | None:
    if unread(reply):
        return None
    return number(reply.text) if reply.numbers is None else expectation(reply.numbers)


def _chat(model: LanguageModel, system: str, question: str) -> Messages:
    """The question under the system turn; where the template refuses one, its text begins the user's turn."""
    chat = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    try:
        render(model.tokenizer, chat, header=True)
    except EmlabError:
        return [{"role": "user", "content": f"{system}\n\n{question}"}]
    return chat
