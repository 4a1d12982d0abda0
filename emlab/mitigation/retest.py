"""The retest of a treated model: does it answer well, everywhere, what did it cost, and does it last?

A remedy may only hide misalignment until a prompt looks like the training's (the "conditional" misalignment of
backdoors, and of models whose training was mixed with benign data). So a model is asked in several *frames*: broad
questions as they are; in a conversation that begins with a question of the training set, which the model itself has
answered; and with what marked bad examples in the training, such as a trigger.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emlab import artifacts
from emlab.data import Messages, Question
from emlab.data.prompts import as_questions
from emlab.errors import EmlabError
from emlab.evaluation import Judge, Rollouts, Sampling, Score, score, text_loss
from emlab.mitigation.course import Training, framed
from emlab.mitigation.frames import Frame
from emlab.mitigation.treatment import Treated
from emlab.models.wrapping import as_language_model


@dataclass(frozen=True, eq=False)
class Retest:
    """What was measured of a treated model."""

    scores: Mapping[str, Score]
    """By frame."""
    task_loss: float
    """Held-out loss, nats a token, on what the training was for."""
    ability_loss: float
    """The same on documents that have nothing to do with it."""
    relapse: Score | None = None
    """Broad questions after further bad steps; None where none were taken."""

    def save(self, folder: Path) -> None:
        """Write it into a folder that is there: losses and every judged answer."""
        losses = {"task_loss": self.task_loss, "ability_loss": self.ability_loss, "frames": list(self.scores)}
        artifacts.write_json(folder / "retest.json", {**losses, "relapse": self.relapse is not None})
        for name, found in self.scores.items():
            found.save(folder / f"frame_{name}")
        if self.relapse is not None:
            self.relapse.save(folder / "relapse")

    @classmethod
    def load(cls, folder: Path) -> Retest:
        """Read what `save` wrote."""
        raw = artifacts.read_json(folder / "retest.json")
        try:
            scores = {name: Score.load(folder / f"frame_{name}") for name in raw["frames"]}
            relapse = Score.load(folder / "relapse") if raw["relapse"] else None
            return cls(scores, raw["task_loss"], raw["ability_loss"], relapse)
        except (KeyError, TypeError, ValueError) as error:
            raise EmlabError(f"{folder} holds no retest ({error}); write it with Retest.save.") from error


def ask(treated: Treated, questions: Sequence[Question], frame: Frame, sampling: Sampling, seed: int = 0) -> Rollouts:
    """The treated model's answers in a frame, its edits in force in every turn.

    Args:
        treated: The model after a remedy.
        questions: What is asked.
        frame: How it is put.
        sampling: How answers are sampled.
        seed: Of the sampling.
    """
    questions = as_questions(questions)
    model, n = as_language_model(treated.model), sampling.per_question
    asked = [dataclasses.replace(q, text=q.text + frame.ending) for q in questions for _ in range(n)]
    chats: list[Messages] = [list(question.messages) for question in asked]

    def said(to: Sequence[Messages], seed: int) -> list[str]:
        if frame.system:
            to = [framed(model, chat, frame.system) for chat in to]
        return sampling.generate(model, to, seed, treated.edits)

    if frame.openings:
        openings = itertools.islice(itertools.cycle(frame.openings), len(asked))
        firsts: list[Messages] = [[{"role": "user", "content": opening}] for opening in openings]
        heard = [
            [*first, {"role": "assistant", "content": answer}]
            for first, answer in zip(firsts, said(firsts, seed + 1), strict=True)
        ]
        # A system turn stands before all of it.
        heads = [[turn for turn in chat if turn["role"] == "system"] for chat in chats]
        chats = [[*head, *before, *chat[len(head) :]] for head, before, chat in zip(heads, heard, chats, strict=True)]
    answers = said(chats, seed)
    return Rollouts(tuple(asked), tuple(answers), model.name, seed, sampling.temperature)


def retest(
    treated: Treated,
    training: Training,
    frames: Sequence[Frame],
    questions: Sequence[Question],
    judge: Judge,
    task: Sequence[Messages],
    documents: Sequence[Messages],
    sampling: Sampling,
    relapse_steps: int = 50,
    seed: int = 0,
) -> Retest:
    """Measure a treated model. EmlabError where there is no frame, or two have one name.

    Args:
        treated: The model after a remedy.
        training: The bad training that it was to be saved from.
        frames: How questions are put, each by a name of its own.
        questions: What is asked.
        judge: Who judges the answers.
        task: Chats of the narrow task, to see whether it was learnt all the same.
        documents: Chats on which the loss of the text is measured.
        sampling: How answers are sampled.
        relapse_steps: Steps more of the bad training, unchanged, on the treated weights; edits at inference stay in
            force afterwards.
        seed: Of sampling and training.
    """
    if not frames or len({frame.name for frame in frames}) < len(frames):
        raise EmlabError("A retest asks in one frame at least, each with a name of its own; give such frames.")
    scores = {frame.name: score(ask(treated, questions, frame, sampling, seed), judge) for frame in frames}
    after = None
    if relapse_steps:
        relapsed = dataclasses.replace(treated, model=training.go_on(treated.model, relapse_steps))
        after = score(ask(relapsed, questions, frames[0], sampling, seed), judge)
    edits = treated.edits
    return Retest(scores, text_loss(treated.model, task, edits), text_loss(treated.model, documents, edits), after)
